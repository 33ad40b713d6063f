//! Whether a server is still there.

use std::time::{Duration, Instant};

use super::recorder::Fault;

/// Requests in a row that found nobody to connect to.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<Instant>,
    requests: u64,
    /// Of all, those that ended otherwise.
    others: u64,
}

/// A server that is started again is back sooner.
const GONE_AFTER: Duration = Duration::from_secs(3);
/// One connection may fail for its own reasons.
const REQUESTS_MIN: u64 = 3;

// === impl Absence ===

impl Absence {
    /// Takes up how a request ended; whether nobody has been there for so long that nobody is waited for.
    pub(super) fn note(&mut self, fault: Option<Fault>, now: Instant) -> bool {
        if fault != Some(Fault::Unreachable) {
            *self = Self { others: self.others + 1, ..Self::default() };
            return false;
        }
        self.requests += 1;
        let since = *self.since.get_or_insert(now);
        self.requests >= REQUESTS_MIN && now >= since + GONE_AFTER
    }

    /// Whether nobody was there for any request of a run that is over.
    pub(super) fn is_total(&self) -> bool {
        self.others == 0 && self.requests > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_gone_when_nobody_was_there_for_a_while() {
        let start = Instant::now();
        let away = Some(Fault::Unreachable);
        let table = [
            (0.0, None, false),
            (1.0, away, false),
            (1.1, away, false),
            (1.2, away, false),
            (3.5, Some(Fault::Broken), false),
            (3.6, away, false),
            (9.0, away, false),
            (9.1, away, true),
        ];
        let mut absence = Absence::default();
        for (at_s, fault, want) in table {
            let is_gone = absence.note(fault, start + Duration::from_secs_f64(at_s));
            assert_eq!(is_gone, want, "after {at_s} s");
        }
        assert!(!absence.is_total(), "it was there before");
        let mut never = Absence::default();
        assert!(!never.is_total() && !never.note(away, start) && never.is_total());
    }
}
