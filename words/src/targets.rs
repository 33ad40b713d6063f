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

/// A year: whoever wants more time wants no limit, and clocks overflow.
pub const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

// === impl Targets ===

impl Targets {
    /// A request's own under a worker's, whose they are where it has none.
    ///
    /// Steps are for all: one request has gaps at most half as long as the worker's, whatever it asks.
    #[must_use]
    pub fn under(self, worker: &Self) -> Self {
        let gap = |own: Option<Duration>, worker: Option<Duration>| {
            own.map(|own| own.max(worker.unwrap_or_default() / 2)).or(worker)
        };
        Self {
            ttft: self.ttft.or(worker.ttft),
            tpot: gap(self.tpot, worker.tpot),
            itl: gap(self.itl, worker.itl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(ms))
    }

    #[test]
    fn a_request_has_its_own_targets_and_else_the_workers() {
        let worker = Targets { ttft: ms(500), tpot: None, itl: ms(30) };
        assert_eq!(Targets::default().under(&worker), worker);
        let own = Targets { ttft: ms(100), tpot: ms(40), itl: ms(60) };
        assert_eq!(own.under(&worker), own);
    }

    #[test]
    fn nobody_makes_all_steps_short() {
        let worker = Targets { itl: ms(30), ..Targets::default() };
        let own = Targets { itl: ms(1), ..Targets::default() };
        assert_eq!(own.under(&worker).itl, ms(15));
    }
}
