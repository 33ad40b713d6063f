//! How many lines of a kind may be written: a flood of refusals must not become one of lines.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Status;

/// Lines of one kind within a second: enough to see who and why.
pub(super) const LINES_MAX: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// What lines have in common: the status, and the error's name. There are some dozens.
pub(super) type Kind = (Status, &'static str);

/// Counts lines by kind.
#[derive(Debug, Default)]
pub(super) struct Quota(HashMap<Kind, Window>);

#[derive(Debug)]
struct Window {
    since: Instant,
    written: u32,
    left_out: u64,
}

// === impl Quota ===

impl Quota {
    /// Whether one more line may be written; if not, it is counted.
    pub(super) fn take(&mut self, kind: Kind, now: Instant) -> bool {
        let fresh = || Window { since: now, written: 0, left_out: 0 };
        let window = self.0.entry(kind).or_insert_with(fresh);
        if now.saturating_duration_since(window.since) >= SECOND {
            (window.since, window.written) = (now, 0);
        }
        let may = window.written < LINES_MAX;
        match may {
            true => window.written += 1,
            false => window.left_out += 1,
        }
        may
    }

    /// How many were left out since the last call, by kind.
    pub(super) fn left_out(&mut self) -> Vec<(Kind, u64)> {
        let windows = self.0.iter_mut().filter(|(_, window)| window.left_out > 0);
        windows.map(|(&kind, window)| (kind, std::mem::take(&mut window.left_out))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Kind = (Status::Http(429), "rate_limit_exceeded");
    const WRONG: Kind = (Status::Http(400), "");

    #[test]
    fn a_flood_is_counted_and_hides_nothing_else() {
        let (mut quota, start) = (Quota::default(), Instant::now());
        let written = (0..1000).filter(|_| quota.take(BUSY, start)).count();
        assert_eq!(written, LINES_MAX as usize);
        assert!(quota.take(WRONG, start), "another kind has lines of its own");
        assert_eq!(quota.left_out(), [(BUSY, 990)]);
        assert_eq!(quota.left_out(), [], "each is told of once");
        assert!(!quota.take(BUSY, start + SECOND / 2));
        assert!(quota.take(BUSY, start + SECOND), "the next second is a new one");
        assert_eq!(quota.left_out(), [(BUSY, 1)], "and what the last one left out is not lost");
    }
}
