//! Engines of other processes on the same device.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// For how long after the last sign of another engine it is taken to be at work.
const AT_WORK: Duration = Duration::from_secs(2);

/// For how long it is expected to come again.
const EXPECTED: Duration = Duration::from_secs(60);

/// When they were seen; clones are of the same device. Whoever takes turns with them tells, and steps are planned by
/// it.
#[derive(Clone, Debug)]
pub(crate) struct Neighbours {
    since: Instant,
    /// Microseconds from `since` to the last sign of one; [`NEVER`] before the first.
    seen_us: Arc<AtomicU64>,
}

const NEVER: u64 = u64::MAX;

// === impl Neighbours ===

impl Neighbours {
    /// Notes that there is one now. Says whether it is the first.
    pub(crate) fn saw_one(&self) -> bool {
        let now_us = self.since.elapsed().as_micros() as u64;
        self.seen_us.swap(now_us, Ordering::Relaxed) == NEVER
    }

    /// Whether one is at work. Then a step should end before the next is submitted, so that each has its turn.
    pub(crate) fn are_at_work(&self) -> bool {
        self.were_seen_within(AT_WORK)
    }

    /// Whether one may come that would wait for a step to end. Then steps should be short.
    pub(crate) fn may_come(&self) -> bool {
        self.were_seen_within(EXPECTED)
    }

    fn were_seen_within(&self, time: Duration) -> bool {
        let seen_us = self.seen_us.load(Ordering::Relaxed);
        seen_us != NEVER && self.since.elapsed() < Duration::from_micros(seen_us) + time
    }
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { since: Instant::now(), seen_us: Arc::new(AtomicU64::new(NEVER)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_expected_only_once_it_was_seen() {
        let neighbours = Neighbours::default();
        assert!(!neighbours.are_at_work() && !neighbours.may_come());
        assert!(neighbours.clone().saw_one(), "the first");
        assert!(neighbours.are_at_work() && neighbours.may_come());
        assert!(!neighbours.saw_one());
    }
}
