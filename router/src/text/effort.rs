//! How far the work on one text may go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What may be spent on one text, and whether anybody still waits for it.
#[derive(Clone, Debug)]
pub struct Effort {
    /// More tokens than this are not wanted: the text is refused then.
    pub tokens_max: usize,
    /// Set once nobody waits any more.
    pub cancelled: Cancelled,
}

/// Tells running work whether anybody still waits for its result.
#[derive(Clone, Debug, Default)]
pub struct Cancelled(Arc<AtomicBool>);

// === impl Effort ===

impl Default for Effort {
    /// Whatever it takes.
    fn default() -> Self {
        Self { tokens_max: usize::MAX, cancelled: Cancelled::default() }
    }
}

impl Effort {
    /// What is left once `tokens` have been found.
    #[must_use]
    pub fn after(&self, tokens: usize) -> Self {
        Self { tokens_max: self.tokens_max.saturating_sub(tokens), ..self.clone() }
    }
}

// === impl Cancelled ===

impl Cancelled {
    /// Whether the result is wanted no more.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
