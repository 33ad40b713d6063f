//! What requests are held to.

use std::time::Duration;

/// What a request is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SloTargets {
    /// From the request's arrival to its first token.
    pub ttft: Duration,
    /// Mean gap between tokens after the first.
    pub tpot: Duration,
}

// === impl SloTargets ===

impl Default for SloTargets {
    /// What people wait for without giving up, and a pace at which they can just read along: what slower hardware keeps,
    /// too. A service with other promises names its own.
    fn default() -> Self {
        Self { ttft: Duration::from_secs(5), tpot: Duration::from_millis(200) }
    }
}
