//! What a user's message is: a command, or something to ask.

/// What there is, for those who ask.
pub(super) const HELP: &str = r#"/clear          forgets the conversation
/system TEXT    sets the instruction for the conversation; alone it shows it, with - it takes it away
/retry          asks the last question again
/exit, /quit    leaves; so does Ctrl-D
/help           shows this

Ctrl-C ends an answer; at an empty prompt it leaves. A line that ends with \ goes on in the next one, and so
does everything between """ and """. What is pasted is one message. A message that begins with / is a
command only if a word follows at once: put a space before it.
"#;

/// A user's message, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order<'a> {
    Nothing,
    Ask(String),
    Help,
    Clear,
    Retry,
    System(Instruction<'a>),
    Leave,
    /// What looks like a command and is none.
    Unknown(&'a str),
}

/// What to do with the instruction for the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction<'a> {
    Show,
    Drop,
    Set(&'a str),
}

// === impl Order ===

impl<'a> Order<'a> {
    /// Understands a message as [`super::input`] has put it together.
    pub(super) fn of(message: &'a str) -> Self {
        let Some(name) = command(message) else {
            return match message.trim() {
                "" => Self::Nothing,
                question => Self::Ask(question.to_owned()),
            };
        };
        match (name, message[name.len()..].trim()) {
            ("/help" | "/?", _) => Self::Help,
            ("/clear", _) => Self::Clear,
            ("/retry", _) => Self::Retry,
            ("/exit" | "/quit" | "/bye", _) => Self::Leave,
            ("/system", "") => Self::System(Instruction::Show),
            ("/system", "-") => Self::System(Instruction::Drop),
            ("/system", text) => Self::System(Instruction::Set(text)),
            _ => Self::Unknown(name),
        }
    }
}

/// The name of a command, if the message begins with one. A path is none: `/etc/hosts is what?`.
fn command(message: &str) -> Option<&str> {
    let name = message.split_whitespace().next().filter(|_| message.starts_with('/'))?;
    let letters = &name[1..];
    let is_name = letters.chars().all(|c| c.is_ascii_alphanumeric() || "-_?".contains(c));
    (is_name && !letters.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn ask(text: &str) -> Order<'_> {
        Order::Ask(text.to_owned())
    }

    #[rstest]
    #[case("", Order::Nothing)]
    #[case("  \n ", Order::Nothing)]
    #[case("What is a river?", ask("What is a river?"))]
    #[case("/help", Order::Help)]
    #[case("/clear ", Order::Clear)]
    #[case("/exit", Order::Leave)]
    #[case("/quit", Order::Leave)]
    #[case("/retry", Order::Retry)]
    #[case("/system", Order::System(Instruction::Show))]
    #[case("/system -", Order::System(Instruction::Drop))]
    #[case("/system Be brief.\nVery.", Order::System(Instruction::Set("Be brief.\nVery.")))]
    #[case("/mdoel x", Order::Unknown("/mdoel"))]
    #[case("/Help", Order::Unknown("/Help"))]
    #[case("/etc/hosts is what?", ask("/etc/hosts is what?"))]
    #[case("/", ask("/"))]
    #[case("// is a comment", ask("// is a comment"))]
    #[case(" /help", ask("/help"))]
    fn messages_are_understood(#[case] message: &str, #[case] expected: Order<'_>) {
        assert_eq!(Order::of(message), expected);
    }
}
