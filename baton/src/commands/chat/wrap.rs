//! Text as it comes, broken at words where the terminal's line ends.

use console::measure_text_width;

/// Wraps text at words. Holds back a word until it has ended.
#[derive(Debug)]
pub(super) struct Wrap {
    /// Columns of a line; `None`: text goes through as it is.
    width: Option<usize>,
    column: usize,
    spaces: String,
    word: String,
}

/// A terminal moves a tab's text to the next multiple.
const TAB_COLUMNS: usize = 8;

// === impl Wrap ===

impl Wrap {
    pub(super) fn new(width: Option<usize>) -> Self {
        Self { width, column: 0, spaces: String::new(), word: String::new() }
    }

    /// Takes more text; returns what can be shown.
    pub(super) fn push(&mut self, text: &str) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '\n' => {
                    self.put_word(width, &mut out);
                    self.spaces.clear();
                    self.column = 0;
                    out.push('\n');
                }
                ' ' | '\t' => {
                    self.put_word(width, &mut out);
                    self.spaces.push(c);
                }
                // A model has no business with the terminal's own commands.
                _ if c.is_control() => {}
                _ => {
                    self.word.push(c);
                    // Scripts with wide characters have no spaces: lines may end after each.
                    if columns(c) == 2 {
                        self.put_word(width, &mut out);
                    }
                }
            }
        }
        out
    }

    /// What was held back.
    pub(super) fn finish(&mut self) -> String {
        let mut out = String::new();
        if let Some(width) = self.width {
            self.put_word(width, &mut out);
        }
        out
    }

    fn put_word(&mut self, width: usize, out: &mut String) {
        let word = std::mem::take(&mut self.word);
        if word.is_empty() {
            return;
        }
        let (spaces, wide) = (std::mem::take(&mut self.spaces), measure_text_width(&word));
        let start = spaces.chars().fold(self.column, after_space);
        if self.column > 0 && start + wide > width {
            out.push('\n');
            self.column = wide;
        } else {
            out.push_str(&spaces);
            self.column = start + wide;
        }
        out.push_str(&word);
        // A word longer than a line is broken by the terminal.
        if self.column > width {
            self.column %= width.max(1);
        }
    }
}

fn after_space(column: usize, space: char) -> usize {
    if space == '\t' { (column / TAB_COLUMNS + 1) * TAB_COLUMNS } else { column + 1 }
}

fn columns(c: char) -> usize {
    measure_text_width(c.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(width: Option<usize>, text: &str, every: usize) -> String {
        let (mut wrap, mut out) = (Wrap::new(width), String::new());
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(every) {
            out += &wrap.push(&piece.iter().collect::<String>());
        }
        out + &wrap.finish()
    }

    #[test]
    fn lines_break_at_words_however_the_text_comes() {
        let text = "The quick brown fox jumps over the lazy dog.\n  - an item, indented\n\nEnd";
        let expected =
            "The quick brown\nfox jumps over\nthe lazy dog.\n  - an item,\nindented\n\nEnd";
        for every in 1..text.len() {
            assert_eq!(wrapped(Some(16), text, every), expected, "{every} characters at a time");
        }
        assert_eq!(wrapped(None, text, 3), text);
    }

    #[test]
    fn a_line_may_be_full() {
        assert_eq!(wrapped(Some(5), "ab cd ef", 1), "ab cd\nef");
    }

    #[test]
    fn long_words_and_wide_characters_have_their_columns() {
        assert_eq!(wrapped(Some(4), "abcdefghij kl", 2), "abcdefghij\nkl");
        assert_eq!(
            wrapped(Some(5), "\u{4f60}\u{597d}\u{4e16}\u{754c}", 1),
            "\u{4f60}\u{597d}\n\u{4e16}\u{754c}"
        );
    }

    #[test]
    fn the_terminal_obeys_its_user_only() {
        assert_eq!(wrapped(Some(40), "a\u{1b}[2Jb\u{7}c\r", 1), "a[2Jbc");
    }
}
