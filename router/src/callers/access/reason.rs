//! Why a call was refused, as far as the log may know.

use std::borrow::Cow;

use crate::RequestError;
use crate::error::bounded;

/// Words in backticks up to this length, and without a space, name a field or a model.
const NAME_CHARS_MAX: usize = 64;

/// Why a call was refused or broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// The error's name in OpenAI's terms; lines with the same one are of a kind.
    pub(crate) code: &'static str,
    /// What the client was told.
    pub(crate) message: String,
    /// Whether that may hold words of the client.
    pub(crate) quotes: bool,
}

// === impl Reason ===

impl Reason {
    /// A reason in our own words.
    pub(crate) fn own(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), quotes: false }
    }

    /// The message without words that may be the client's: what is wrong with a request is told by
    /// quoting it, and a quote may be its prompt.
    pub(super) fn discreet(&self) -> Cow<'_, str> {
        if !self.quotes {
            return Cow::Borrowed(&self.message);
        }
        // Details follow a colon: what a parser met, what a template said.
        let main = self.message.split(':').next().unwrap_or_default();
        let main = main.split('"').next().unwrap_or_default();
        main.split('`').enumerate().map(plain).collect::<Vec<_>>().join("`").into()
    }
}

impl From<&RequestError> for Reason {
    fn from(error: &RequestError) -> Self {
        let message = bounded(&error.to_string()).into_owned();
        Self { code: "", message, quotes: error.quotes() }
    }
}

/// A part of a message that was split at its backticks: of what stood between two, only names are kept.
fn plain((index, part): (usize, &str)) -> &str {
    let is_quote = index % 2 == 1;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.[]/".contains(c);
    let names = part.chars().count() <= NAME_CHARS_MAX && part.chars().all(is_name);
    if is_quote && !names { "..." } else { part }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_field("`temperature` is 3, more than 2", "`temperature` is 3, more than 2")]
    #[case::a_value("`stop` has the wrong type: string \"my secret\"", "`stop` has the wrong type")]
    #[case::json("the tool choice {\"my\": \"secret\"} is not known", "the tool choice {")]
    #[case::a_template("the template refused: my secret", "the template refused")]
    #[case::a_role("the role `my secret` is not known", "the role `...` is not known")]
    #[case::unpaired("the role `my secret is not known", "the role `...")]
    #[case::a_model(
        "the model `org/name-1.5` does not exist",
        "the model `org/name-1.5` does not exist"
    )]
    fn clients_words_stay_out(#[case] message: &str, #[case] told: &str) {
        let reason = Reason { code: "", message: message.into(), quotes: true };
        assert_eq!(reason.discreet(), told);
        let own = Reason::own("", message);
        assert_eq!(own.discreet(), message, "our own words are told whole");
    }
}
