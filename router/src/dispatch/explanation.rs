//! Why a call's requests went where they went, for those who ask.

use std::sync::Arc;

use parking_lot::Mutex;
use scheduler::{Notes, Placement, Refusal};
use tracing::Level;

use super::DispatchError;

/// What is told of a call: it has to fit among the headers of its answer.
const BYTES_MAX: usize = 4096;

/// Takes down the decisions about one call: of each of its parts, and again where a part had to move. A clone is the same
/// one.
#[derive(Clone, Debug, Default)]
pub struct Explanation(Arc<Mutex<String>>);

// === impl Explanation ===

impl Explanation {
    /// The decisions so far, in ASCII, separated by ` | `; `None` before the first.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        Some(self.0.lock().clone()).filter(|text| !text.is_empty())
    }

    /// Takes a decision down, as far as there is room.
    pub fn add(&self, decision: &str) {
        let mut text = self.0.lock();
        let separator = if text.is_empty() { "" } else { " | " };
        let room = BYTES_MAX.saturating_sub(text.len() + separator.len());
        if room > 0 {
            let printable = |it: char| if (' '..='~').contains(&it) { it } else { '?' };
            text.push_str(separator);
            text.extend(decision.chars().map(printable).take(room));
        }
    }
}

/// Notes for a decision, where anybody will read them.
pub(super) fn notes(wanted: Option<&Explanation>) -> Option<Notes> {
    (wanted.is_some() || tracing::enabled!(Level::DEBUG)).then(Notes::default)
}

/// Tells those who asked, and the log.
pub(super) fn tell(
    notes: Option<&Notes>,
    decision: &Result<&Placement, Refusal>,
    wanted: Option<&Explanation>,
) {
    let Some(notes) = notes else { return };
    let line = notes.explain(decision);
    tracing::debug!(decision = line, "placed");
    if let Some(wanted) = wanted {
        wanted.add(&line);
    }
}

/// Tells those who asked why a request that had a place was not let in.
pub(super) fn tell_refusal(judged: &Result<(), DispatchError>, wanted: Option<&Explanation>) {
    if let (Err(refused), Some(wanted)) = (judged, wanted) {
        wanted.add(&format!("refused: {}", refused.message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_fits_into_a_header() {
        let told = Explanation::default();
        assert_eq!(told.text(), None);
        told.add("p -> d\u{e9}\n");
        told.add(&"x".repeat(3000));
        told.add(&"y".repeat(3000));
        told.add("more than there is room for");
        let text = told.text().expect("two decisions");
        assert!(text.starts_with("p -> d?? | xxx") && text.len() == BYTES_MAX, "{text}");
        assert!(http::HeaderValue::try_from(text).is_ok());
    }
}
