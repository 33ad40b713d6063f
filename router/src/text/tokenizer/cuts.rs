//! Where a text may be cut so that its pieces, tokenized one by one, give the tokens of the whole.
//!
//! A pre-tokenizer cuts a text into words before the model sees it, and no token reaches over such a cut.
//! Between a letter and a single separator that another letter follows, the well-known ones always cut, and
//! what they do on one side depends on nothing on the other: runs of letters end there, and nothing looks
//! back. A tokenizer that isn't known to do so is not cut.

use serde_json::Value as Json;

/// Enough for the cost of a piece's own to vanish, and tokenized in some 5 ms.
const PIECE_BYTES: usize = 8 << 10;
/// What stands for a space in SentencePiece's vocabularies.
const SPACE_MARK: char = '▁';

/// Letters that may be followed by a cut, and where whole words lie behind.
const SEPARATORS: &[char] = &[' ', '\n', '。', '，', '、'];
const SPACE_ONLY: &[char] = &[' '];

/// Alternatives of pre-tokenizers' patterns that match letters: all end where letters end.
const LETTERS: &[&str] = &[
    r" ?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
];
/// Alternatives that match no separator beside two letters, or the separator alone.
const OTHERS: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"'(?i:[sdmt]|ll|ve|re)",
    r"'(?:[sdmt]|ll|ve|re)",
    r"'s",
    r"'t",
    r"'re",
    r"'ve",
    r"'m",
    r"'ll",
    r"'d",
    r"\p{N}",
    r"\p{N}+",
    r"\p{N}{1,3}",
    r" ?\p{N}+",
    r" ?[^\s\p{L}\p{N}]+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r"\s*[\r\n]",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
];

/// How texts for one tokenizer may be cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cuts {
    separators: &'static [char],
    /// The tokenizer puts a space in front of each piece: that of the cut is left out.
    drops_space: bool,
}

/// What is known of a normalizer that may be applied to pieces.
#[derive(Clone, Copy, Debug, Default)]
struct Normalizer {
    prepends: bool,
}

// === impl Cuts ===

impl Cuts {
    /// How texts may be cut; `None` if nothing is known of this tokenizer that would allow for it.
    pub(super) fn of(json: &Json) -> Option<Self> {
        let normalizer = Normalizer::read(&json["normalizer"])?;
        let model = &json["model"];
        let is_random = model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0);
        if is_random || !added_tokens_stay_whole(&json["added_tokens"]) {
            return None;
        }
        let pre_tokenizer = &json["pre_tokenizer"];
        if splits_at_words(pre_tokenizer) && !normalizer.prepends {
            let separators = if adds_spaces(pre_tokenizer) { SPACE_ONLY } else { SEPARATORS };
            return Some(Self { separators, drops_space: false });
        }
        let is_metaspace = pre_tokenizer["type"] == "Metaspace"
            && pre_tokenizer["replacement"] == SPACE_MARK.to_string();
        let splits = is_metaspace && pre_tokenizer["split"] != false;
        let no_token_spans = || (pre_tokenizer.is_null() || is_metaspace) && no_token_spans(model);
        let cuts = Self { separators: SPACE_ONLY, drops_space: normalizer.prepends };
        (splits && !normalizer.prepends || no_token_spans()).then_some(cuts)
    }

    /// The pieces of a text, in order.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut rest = Some(text);
        std::iter::from_fn(move || {
            let text = rest?;
            let Some((end, begin)) = self.cut(text) else { return rest.take() };
            rest = Some(&text[begin..]);
            Some(&text[..end])
        })
    }

    /// Where the text's first piece ends, and where the next one begins.
    fn cut(&self, text: &str) -> Option<(usize, usize)> {
        if text.len() < 2 * PIECE_BYTES {
            return None;
        }
        let from = text.floor_char_boundary(PIECE_BYTES);
        let chars = || text[from..].char_indices();
        let triples = chars().zip(chars().skip(1)).zip(chars().skip(2));
        let mut found = triples.filter(|(((_, before), (_, at)), (_, after))| {
            is_letter(*before) && self.separators.contains(at) && is_letter(*after)
        });
        let ((_, (at, _)), (next, _)) = found.next()?;
        Some((from + at, from + if self.drops_space { next } else { at }))
    }
}

/// Letters that every pattern in the lists takes for letters.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, 'А'..='я' | 'ぁ'..='ゖ' | 'ァ'..='ヺ' | '一'..='\u{9FFF}' | '가'..='힣')
}

/// Whether an added token is found in a piece where it is found in the whole text.
fn added_tokens_stay_whole(added: &Json) -> bool {
    added.as_array().into_iter().flatten().all(|token| {
        let text = token["content"].as_str().unwrap_or_default();
        let swallows_spaces = token["lstrip"] == true || token["rstrip"] == true;
        let at_letters = text.chars().next().is_some_and(is_letter)
            || text.chars().last().is_some_and(is_letter);
        let is_cut = text.contains(SEPARATORS) || text.contains(SPACE_MARK);
        let loses_spaces = swallows_spaces && at_letters;
        !(is_cut || loses_spaces)
    })
}

/// Whether a pre-tokenizer always cuts between a letter and a separator before another letter.
fn splits_at_words(pre_tokenizer: &Json) -> bool {
    match pre_tokenizer["type"].as_str() {
        Some("ByteLevel") => pre_tokenizer["use_regex"] != false,
        Some("Split") => is_known_split(pre_tokenizer),
        Some("Sequence") => {
            let steps = pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice);
            let is_harmless = |step: &&Json| {
                step["type"] == "ByteLevel" || step["type"] == "Digits" || splits_at_words(step)
            };
            steps.iter().all(|step| is_harmless(&step)) && steps.iter().any(splits_at_words)
        }
        _ => false,
    }
}

/// Whether a step puts a space before what begins with none.
fn adds_spaces(pre_tokenizer: &Json) -> bool {
    let inside = pre_tokenizer["pretokenizers"].as_array();
    pre_tokenizer["add_prefix_space"] == true || inside.into_iter().flatten().any(adds_spaces)
}

fn is_known_split(split: &Json) -> bool {
    let Some(pattern) = split["pattern"]["Regex"].as_str() else { return false };
    let keeps_all = split["behavior"] == "Isolated" && split["invert"] == false
        || split["behavior"] == "Removed" && split["invert"] == true;
    let parts = alternatives(pattern);
    keeps_all
        && parts.iter().all(|part| LETTERS.contains(part) || OTHERS.contains(part))
        && parts.iter().any(|part| LETTERS.contains(part))
}

/// The alternatives of a pattern, those within groups not divided.
fn alternatives(pattern: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth, mut escaped) = (Vec::new(), 0, 0, false);
    for (at, c) in pattern.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '|' if depth == 0 => {
                parts.push(&pattern[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[begin..]);
    parts
}

/// Whether the model merges over no space that follows something else: no token has one inside.
fn no_token_spans(model: &Json) -> bool {
    let is_blank = |field: &str| model[field].is_null() || model[field] == "";
    let plain = model["type"] == "BPE"
        && is_blank("continuing_subword_prefix")
        && is_blank("end_of_word_suffix")
        && (model["byte_fallback"] == true || model["fuse_unk"] != true);
    let spans = |token: &String| token.trim_start_matches(SPACE_MARK).contains(SPACE_MARK);
    plain && model["vocab"].as_object().is_some_and(|vocab| !vocab.keys().any(spans))
}

// === impl Normalizer ===

impl Normalizer {
    /// `None` if it might do something at the beginning or the end of a piece that it doesn't do inside.
    fn read(json: &Json) -> Option<Self> {
        match json["type"].as_str() {
            None => json.is_null().then(Self::default),
            Some("NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase") => Some(Self::default()),
            Some("Prepend") => {
                (json["prepend"] == SPACE_MARK.to_string()).then_some(Self { prepends: true })
            }
            Some("Replace") => {
                let of_space =
                    json["pattern"]["String"] == " " && json["content"] == SPACE_MARK.to_string();
                of_space.then(Self::default)
            }
            Some("Sequence") => {
                let mut whole = Self::default();
                for step in json["normalizers"].as_array()? {
                    whole.prepends |= Self::read(step)?.prepends;
                }
                Some(whole)
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
