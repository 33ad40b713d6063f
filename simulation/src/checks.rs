//! What must never be, and what is said when it is; and what a run came through.

pub mod coverage;
pub mod ledger;

use std::sync::Arc;

use parking_lot::Mutex;

/// Findings kept: the first ones tell, the rest follows from them.
const FINDINGS_MAX: usize = 16;

/// What was found wrong. A clone is another handle to the same list.
#[derive(Clone, Default)]
pub struct Verdicts(Arc<Mutex<Vec<String>>>);

// === impl Verdicts ===

impl Verdicts {
    /// Notes a violation.
    pub fn violated(&self, what: impl Into<String>) {
        let what = what.into();
        tracing::warn!(what, "violated");
        let mut findings = self.0.lock();
        if findings.len() < FINDINGS_MAX {
            findings.push(what);
        }
    }

    /// All of them, the first one first.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// Whether there is one.
    #[must_use]
    pub fn are_bad(&self) -> bool {
        !self.0.lock().is_empty()
    }
}
