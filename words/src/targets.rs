//! How soon tokens are wanted.

use std::time::Duration;

/// What a request, or all of a worker's, is to be held to; `None` where nothing is promised.
///
/// Steps are cut so that they are kept, prompts come in the order that keeps most of them; nobody is refused for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// From the request's arrival to its first token.
    pub ttft: Option<Duration>,
    /// Mean gap between two tokens after the first.
    pub tpot: Option<Duration>,
    /// Longest gap between two tokens.
    pub itl: Option<Duration>,
}

// === impl Targets ===

impl Targets {
    /// These, and `others` where these say nothing.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self {
            ttft: self.ttft.or(others.ttft),
            tpot: self.tpot.or(others.tpot),
            itl: self.itl.or(others.itl),
        }
    }
}
