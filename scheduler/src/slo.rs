//! Whether requests met their targets, and how many did lately.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Buckets of a window: the share of it by which an answer may be off.
const BUCKETS: u32 = 60;

/// What a request is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SloTargets {
    /// From the request's arrival to its first token.
    pub ttft: Duration,
    /// Mean gap between tokens after the first.
    pub tpot: Duration,
}

/// When a request's tokens came, by the clock of the router that received it.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The request's arrival.
    pub received: Instant,
    /// The first token's departure.
    pub first_token: Instant,
    /// The last token's departure.
    pub last_token: Instant,
    /// Tokens of the longest choice.
    pub output_tokens: u32,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Answered {
        /// Its time to first token met the target.
        ttft_met: bool,
        /// Its time per output token met the target; true with fewer than two tokens.
        tpot_met: bool,
    },
    /// It was refused or it failed: a miss, or refusing everything would be the best service.
    /// Requests that the client ended or got wrong aren't recorded.
    Failed,
}

/// What became of the requests of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goodput {
    /// Requests that ended per second.
    pub requests_per_s: f64,
    /// Requests that met both targets per second.
    pub good_per_s: f64,
    /// Requests that ended.
    pub requests: u64,
    /// Of those, met both targets.
    pub good: u64,
    /// Of those, missed the first token's target.
    pub ttft_missed: u64,
    /// Of those, missed the target per output token.
    pub tpot_missed: u64,
    /// Of those, got no answer.
    pub failed: u64,
}

/// Outcomes of the last so many seconds, in bounded memory.
#[derive(Debug)]
pub struct SloWindow {
    bucket: Duration,
    /// Oldest first; at most [`BUCKETS`], those without outcomes left out.
    buckets: VecDeque<Bucket>,
    started: Instant,
}

#[derive(Debug)]
struct Bucket {
    index: u128,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    good: u64,
    ttft_missed: u64,
    tpot_missed: u64,
    failed: u64,
}

// === impl SloTargets ===

impl Default for SloTargets {
    /// What people wait for without giving up, and a pace at which they can just read along: what slower hardware keeps,
    /// too. A service with other promises names its own.
    fn default() -> Self {
        Self { ttft: Duration::from_secs(5), tpot: Duration::from_millis(200) }
    }
}

impl SloTargets {
    /// Holds a request to its targets.
    #[must_use]
    pub fn judge(&self, timing: &Timing) -> Outcome {
        Outcome::Answered {
            ttft_met: timing.ttft() <= self.ttft,
            tpot_met: timing.tpot().is_none_or(|tpot| tpot <= self.tpot),
        }
    }
}

// === impl Timing ===

impl Timing {
    /// Time to first token.
    #[must_use]
    pub fn ttft(&self) -> Duration {
        self.first_token.saturating_duration_since(self.received)
    }

    /// Mean time per output token after the first; `None` with fewer than two tokens.
    #[must_use]
    pub fn tpot(&self) -> Option<Duration> {
        let gaps = self.output_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.last_token.saturating_duration_since(self.first_token) / gaps)
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether both targets were met.
    #[must_use]
    pub fn is_good(self) -> bool {
        self == Self::Answered { ttft_met: true, tpot_met: true }
    }
}

// === impl SloWindow ===

impl SloWindow {
    /// An empty window over the last `span`, exact to a sixtieth of it.
    ///
    /// # Panics
    /// If `span` is shorter than 60 nanoseconds.
    #[must_use]
    pub fn new(span: Duration, now: Instant) -> Self {
        let bucket = span / BUCKETS;
        assert!(!bucket.is_zero(), "a window has a length");
        Self { bucket, buckets: VecDeque::with_capacity(BUCKETS as usize), started: now }
    }

    /// Counts a request that ended at `now`.
    pub fn record(&mut self, outcome: Outcome, now: Instant) {
        self.forget(now);
        let index = self.index(now);
        // A clock that steps back is counted where it was last.
        if self.buckets.back().is_none_or(|last| last.index < index) {
            self.buckets.push_back(Bucket { index, counts: Counts::default() });
        }
        self.buckets.back_mut().expect("just pushed").counts.add(outcome);
    }

    /// What became of the requests in the window that ends at `now`.
    pub fn goodput(&mut self, now: Instant) -> Goodput {
        self.forget(now);
        let mut sum = Counts::default();
        for bucket in &self.buckets {
            sum.merge(&bucket.counts);
        }
        let span_s = self.span(now).as_secs_f64();
        let rate = |count: u64| if span_s > 0.0 { count as f64 / span_s } else { 0.0 };
        Goodput {
            requests_per_s: rate(sum.requests),
            good_per_s: rate(sum.good),
            requests: sum.requests,
            good: sum.good,
            ttft_missed: sum.ttft_missed,
            tpot_missed: sum.tpot_missed,
            failed: sum.failed,
        }
    }

    fn index(&self, now: Instant) -> u128 {
        now.saturating_duration_since(self.started).as_nanos() / self.bucket.as_nanos()
    }

    /// The time that the kept buckets stand for: whole ones and the part of the current one, or all
    /// the time there has been.
    fn span(&self, now: Instant) -> Duration {
        let age = now.saturating_duration_since(self.started);
        let into_current = (age.as_nanos() % self.bucket.as_nanos()) as u64;
        age.min(self.bucket * (BUCKETS - 1) + Duration::from_nanos(into_current))
    }

    fn forget(&mut self, now: Instant) {
        let index = self.index(now);
        while self.buckets.front().is_some_and(|first| first.index + u128::from(BUCKETS) <= index) {
            self.buckets.pop_front();
        }
    }
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        self.requests += 1;
        self.good += u64::from(outcome.is_good());
        match outcome {
            Outcome::Answered { ttft_met, tpot_met } => {
                self.ttft_missed += u64::from(!ttft_met);
                self.tpot_missed += u64::from(!tpot_met);
            }
            Outcome::Failed => self.failed += 1,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.good += other.good;
        self.ttft_missed += other.ttft_missed;
        self.tpot_missed += other.tpot_missed;
        self.failed += other.failed;
    }
}

// === impl Goodput ===

impl Goodput {
    /// The share of requests that met both targets; `None` without any.
    #[must_use]
    pub fn attainment(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.good as f64 / self.requests as f64)
    }
}

#[cfg(test)]
mod tests;
