//! When a sequence's next token is wanted, by its targets.

use std::time::Duration;

use words::Targets;

/// Of the mean gap that is wanted, what steps may use: the rest is for the way to the client.
const TPOT_SHARE: f64 = 0.95;

/// When a token is wanted, counted from the step's begin; `None` where nobody has said, at once where its time has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The first token.
    First(Option<Duration>),
    /// The next one of a stream.
    Next(Option<Duration>),
}

/// How far a sequence has come when a step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has no token yet.
    Waiting {
        /// Since it arrived.
        since: Duration,
    },
    /// It has had some.
    Streaming {
        /// Since the first.
        since: Duration,
        /// Tokens after the first.
        gaps: u32,
        /// Since the latest.
        silent: Duration,
    },
}

// === impl Due ===

impl Due {
    /// When whoever has come so far wants the next token.
    ///
    /// A stream that is ahead of its mean may spend that on one long gap, if no gap is too long by itself.
    #[must_use]
    pub fn of(progress: Progress, targets: &Targets) -> Self {
        match progress {
            Progress::Waiting { since } => {
                Self::First(targets.ttft.map(|ttft| ttft.saturating_sub(since)))
            }
            Progress::Streaming { since, gaps, silent } => {
                let itl = targets.itl.map(|itl| itl.saturating_sub(silent));
                let mean = targets.tpot.map(|tpot| {
                    tpot.mul_f64(TPOT_SHARE).saturating_mul(gaps + 1).saturating_sub(since)
                });
                Self::Next(itl.into_iter().chain(mean).min())
            }
        }
    }

    /// The time until a stream's next token.
    pub(super) fn next(self) -> Option<Duration> {
        if let Self::Next(time) = self { time } else { None }
    }

    /// The time until the first.
    pub(super) fn first(self) -> Option<Duration> {
        if let Self::First(time) = self { time } else { None }
    }

    /// Whether somebody reads its tokens already.
    pub(super) fn is_streaming(self) -> bool {
        matches!(self, Self::Next(_))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn targets(ttft: u64, tpot: u64, itl: u64) -> Targets {
        let of = |value| (value > 0).then(|| ms(value));
        Targets { ttft: of(ttft), tpot: of(tpot), itl: of(itl) }
    }

    /// Targets in ms, 0 for none.
    #[rstest]
    #[case::nothing_promised((0, 0, 0), Due::First(None))]
    #[case::a_first_token((500, 0, 0), Due::First(Some(ms(380))))]
    #[case::a_late_one((100, 0, 0), Due::First(Some(ms(0))))]
    #[case::gaps_are_no_concern_of_it((0, 20, 30), Due::First(None))]
    fn a_prompt_is_due(#[case] (ttft, tpot, itl): (u64, u64, u64), #[case] due: Due) {
        let progress = Progress::Waiting { since: ms(120) };
        assert_eq!(Due::of(progress, &targets(ttft, tpot, itl)), due);
    }

    /// A stream with four gaps in 60 ms, 5 ms after its latest token.
    #[rstest]
    #[case::nothing_promised((500, 0, 0), Due::Next(None))]
    #[case::a_gap((0, 0, 30), Due::Next(Some(ms(25))))]
    #[case::it_has_been_fast((0, 20, 0), Due::Next(Some(ms(35))))]
    #[case::but_no_gap_is_to_be_long((0, 20, 30), Due::Next(Some(ms(25))))]
    #[case::it_has_been_slow((0, 10, 30), Due::Next(Some(ms(0))))]
    fn a_stream_is_due(#[case] (ttft, tpot, itl): (u64, u64, u64), #[case] due: Due) {
        let progress = Progress::Streaming { since: ms(60), gaps: 4, silent: ms(5) };
        assert_eq!(Due::of(progress, &targets(ttft, tpot, itl)), due);
    }
}
