//! Whether this process was there while time passed.

use std::time::Duration;

use tokio::time::Instant;

/// Notices that this process did not run for a while: it was stopped, its machine slept, or its
/// runtime stalled.
///
/// Meanwhile every time limit ran out and peers may have given this process up, through no fault of
/// theirs. Whoever waits says before when it will look again at the latest; waking much later than
/// that, it has been away, and holds nothing against its peers for a grace period.
#[derive(Debug)]
pub(super) struct Attention {
    tolerance: Duration,
    grace: Duration,
    expected: Instant,
    graced_until: Instant,
}

// === impl Attention ===

impl Attention {
    /// - `tolerance`: how late a busy process may be.
    /// - `grace`: how long peers have to be heard again.
    pub(super) fn new(tolerance: Duration, grace: Duration, now: Instant) -> Self {
        Self { tolerance, grace, expected: now, graced_until: now }
    }

    /// Will wake by `by`.
    pub(super) fn rest_until(&mut self, by: Instant) {
        self.expected = by;
    }

    /// Is awake. Whether it was away until now.
    pub(super) fn wake(&mut self, now: Instant) -> bool {
        let away = now > self.expected + self.tolerance;
        if away {
            self.graced_until = now + self.grace;
        }
        self.expected = now;
        away
    }

    /// Whether peers are still to be given time to be heard again.
    pub(super) fn is_graceful(&self, now: Instant) -> bool {
        now < self.graced_until
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Rests for the first number of milliseconds, wakes after the second.
    #[rstest]
    #[case::in_time(100, 100, false)]
    #[case::early(100, 5, false)]
    #[case::late_but_busy(100, 590, false)]
    #[case::away(100, 601, true)]
    #[case::a_long_rest(1_000, 1_400, false)]
    #[case::away_for_long(100, 60_000, true)]
    fn who_wakes_much_too_late_was_away(
        #[case] rest_ms: u64,
        #[case] woken_ms: u64,
        #[case] away: bool,
    ) {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut attention =
            Attention::new(Duration::from_millis(500), Duration::from_secs(1), start);
        attention.rest_until(after(rest_ms));
        assert_eq!(attention.wake(after(woken_ms)), away);
        assert_eq!(attention.is_graceful(after(woken_ms + 999)), away);
        assert!(!attention.is_graceful(after(woken_ms + 1_000)));
    }
}
