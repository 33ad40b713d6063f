//! What a user types, or a pipe brings, put together to messages.

use std::io::{BufRead, IsTerminal as _};

use anyhow::{Context as _, Result};
use rustyline::completion::Completer;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ConditionalEventHandler, Editor, Event, EventContext, EventHandler, Helper, KeyEvent,
    Movement, RepeatCount,
};

/// Around text of several lines.
const FENCE: &str = "\"\"\"";

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A message, perhaps of several lines.
    Message(String),
    /// No more.
    End,
}

/// Where messages come from.
pub(super) struct Input {
    /// `None` while a message is being read.
    source: Option<Source>,
}

enum Source {
    Terminal(Box<Editor<Messages, DefaultHistory>>),
    Pipe(std::io::Stdin),
}

/// Knows where a message ends.
struct Messages;

/// Ctrl-C: takes back what was typed, or leaves where there is nothing.
struct TakeBack;

// === impl Input ===

impl Input {
    /// - `is_person`: whether standard input is a terminal.
    ///
    /// # Errors
    /// If the terminal can't be read.
    pub(super) fn new(is_person: bool) -> Result<Self> {
        let source = match is_person {
            true => Source::Terminal(Box::new(editor()?)),
            false => Source::Pipe(std::io::stdin()),
        };
        Ok(Self { source: Some(source) })
    }

    /// The next message. Reads on a blocking thread.
    ///
    /// # Errors
    /// If nothing can be read.
    pub(super) async fn next(&mut self) -> Result<Line> {
        let mut source = self.source.take().context("a message is being read already")?;
        let reading = tokio::task::spawn_blocking(move || {
            let line = source.read();
            (source, line)
        });
        let (source, line) = reading.await?;
        self.source = Some(source);
        line
    }
}

fn editor() -> Result<Editor<Messages, DefaultHistory>> {
    // Where answers go into a file, the prompt still goes to the terminal.
    let behavior = match std::io::stdout().is_terminal() {
        true => Behavior::Stdio,
        false => Behavior::PreferTerm,
    };
    let config = rustyline::Config::builder().behavior(behavior).build();
    let mut editor = Editor::with_config(config).context("the terminal can't be read")?;
    editor.set_helper(Some(Messages));
    let take_back = EventHandler::Conditional(Box::new(TakeBack));
    editor.bind_sequence(KeyEvent::ctrl('C'), take_back);
    Ok(editor)
}

// === impl Source ===

impl Source {
    fn read(&mut self) -> Result<Line> {
        match self {
            Self::Terminal(editor) => match editor.readline("> ") {
                Ok(text) => {
                    // A history that can't grow is no reason to stop talking.
                    let _ = editor.add_history_entry(text.as_str());
                    Ok(Line::Message(whole(&text)))
                }
                Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(Line::End),
                Err(error) => Err(error).context("the terminal can't be read"),
            },
            Self::Pipe(stdin) => read_message(&mut stdin.lock()),
        }
    }
}

/// Reads lines until a message is whole, or there are no more.
fn read_message(lines: &mut impl BufRead) -> Result<Line> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        let read = lines.read_until(b'\n', &mut line).context("standard input can't be read")?;
        let line = String::from_utf8_lossy(&line);
        text.push_str(
            line.strip_suffix('\n').map_or(&*line, |l| l.strip_suffix('\r').unwrap_or(l)),
        );
        match (read, is_open(&text)) {
            (0, _) if text.is_empty() => return Ok(Line::End),
            (0, _) | (_, false) => return Ok(Line::Message(whole(&text))),
            (_, true) => text.push('\n'),
        }
    }
}

/// Whether more lines belong to a message that begins like this.
fn is_open(text: &str) -> bool {
    match text.trim_start().strip_prefix(FENCE) {
        Some(rest) => !rest.trim_end().ends_with(FENCE),
        None => goes_on(text),
    }
}

/// Whether a line ends with a backslash that is not itself escaped.
fn goes_on(line: &str) -> bool {
    line.chars().rev().take_while(|&c| c == '\\').count() % 2 == 1
}

/// A message without the marks that held its lines together.
fn whole(text: &str) -> String {
    if let Some(rest) = text.trim_start().strip_prefix(FENCE) {
        let rest = rest.trim_end();
        return rest.strip_suffix(FENCE).unwrap_or(rest).trim_matches('\n').to_owned();
    }
    let lines =
        text.split('\n').map(|line| if goes_on(line) { &line[..line.len() - 1] } else { line });
    lines.collect::<Vec<_>>().join("\n").trim_end_matches('\n').to_owned()
}

// === impl Messages ===

impl Helper for Messages {}

impl Highlighter for Messages {}

impl Completer for Messages {
    type Candidate = String;
}

impl Hinter for Messages {
    type Hint = String;
}

impl Validator for Messages {
    fn validate(&self, typed: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match is_open(typed.input()) {
            true => ValidationResult::Incomplete,
            false => ValidationResult::Valid(None),
        })
    }
}

// === impl TakeBack ===

impl ConditionalEventHandler for TakeBack {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, typed: &EventContext<'_>) -> Option<Cmd> {
        (!typed.line().is_empty()).then_some(Cmd::Kill(Movement::WholeBuffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let (mut bytes, mut messages) = (text.as_bytes(), Vec::new());
        while let Line::Message(message) = read_message(&mut bytes).expect("bytes") {
            messages.push(message);
        }
        messages
    }

    #[test]
    fn lines_become_messages() {
        assert_eq!(messages("one\r\ntwo"), ["one", "two"]);
        assert_eq!(messages("one\\\ntwo\\\nthree\nfour\n"), ["one\ntwo\nthree", "four"]);
        assert_eq!(messages("\"\"\"one\n\n  two\n\"\"\"\nthree\n"), ["one\n\n  two", "three"]);
        assert_eq!(messages("\"\"\"in one line\"\"\"\n"), ["in one line"]);
        assert_eq!(messages("\"\"\"\nnever closed\n"), ["never closed"]);
        assert_eq!(messages("goes on\\"), ["goes on"]);
        assert_eq!(messages("a \\\\\nb\n"), ["a \\\\", "b"], "an escaped backslash ends the line");
        assert_eq!(messages("caf\u{e9} \u{1f600}\n"), ["caf\u{e9} \u{1f600}"]);
        assert!(messages("").is_empty());
    }

    #[test]
    fn text_that_is_not_utf8_is_read_as_far_as_it_goes() {
        let mut bytes = &b"a\xffb\n"[..];
        assert_eq!(read_message(&mut bytes).unwrap(), Line::Message("a\u{fffd}b".into()));
    }
}
