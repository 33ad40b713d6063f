//! What the engine says about itself.

use std::time::Duration;

use scheduler::Backlog;
use scheduler::cost::{OutputLengths, StepSeed, StepShape, StepTimes};

use super::ahead::PlanAhead;

/// How much of an average one new measurement makes. A tenth: some ten steps to follow a change of
/// load, and a single slow step moves it by little.
pub(super) const NEWEST_SHARE: f64 = 0.1;

/// A snapshot, as of the end of the last step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStats {
    /// Running sequences; each choice counts.
    pub running: u32,
    /// Submissions that haven't started, and sequences that were preempted.
    pub waiting: u32,
    /// Of all these, sequences whose reader has stalled.
    pub paused: u32,
    /// Tokens of contexts that have no KV yet.
    pub backlog: Backlog,
    /// Tokens of KV that running sequences hold.
    pub context_tokens: u64,
    /// Measured prefill rate, tokens per second; 0 until measured.
    pub prefill_tokens_per_s: f64,
    /// Measured time of a step without prefill, seconds; 0 until measured.
    pub decode_step_s: f64,
    /// Tokens of the sequences that ended.
    pub output: OutputLengths,
    /// Steps that ran. This and what follows are counts since the start.
    pub steps: u64,
    /// Seconds in which the engine's thread worked for steps: planned, submitted and delivered, not
    /// waited. By steps that is what one costs the host.
    pub host_s: f64,
    /// Of [`EngineStats::steps`], those without prefill.
    pub decode_steps: u64,
    /// Of [`EngineStats::host_s`], what went into them. Submitting a prompt's many operations may wait
    /// for the device, so that only this is the host's cost of a step.
    pub decode_host_s: f64,
    /// How far off forecasts of steps' times were.
    pub forecasts: ForecastErrors,
    /// Steps that failed on the device.
    pub failed_steps: u64,
    /// Sequences that gave their blocks back to an older one.
    pub preemptions: u64,
    /// Sequences that gave up their places to those of other clients, or because nobody read them.
    pub parkings: u64,
    /// Context tokens computed in chunks, recomputation included.
    pub prefill_tokens: u64,
    /// Context tokens found in the prefix cache.
    pub cached_tokens: u64,
    /// Tokens sampled.
    pub decode_tokens: u64,
    /// Submissions that ended with a result.
    pub finished: u64,
    /// Submissions whose reader went away.
    pub cancelled: u64,
    /// Submissions that ended in [`crate::SequenceError`].
    pub failed: u64,
    /// Of them, those whose logits were no numbers.
    pub miscomputed: u64,
}

/// How far off forecasts of steps' times were, as shares of those times: counts since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ForecastErrors {
    /// Steps whose error was at most the bound of the same place among [`ForecastErrors::BOUNDS`], and above the
    /// one before it; those above all bounds last.
    pub counts: [u64; ForecastErrors::BOUNDS.len() + 1],
    /// Sum of all errors.
    pub sum: f64,
}

// === impl ForecastErrors ===

impl ForecastErrors {
    /// Bounds of errors that are counted apart.
    pub const BOUNDS: [f64; 8] = [0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0];

    fn observe(&mut self, error: f64) {
        let bound = Self::BOUNDS.iter().position(|bound| error <= *bound);
        self.counts[bound.unwrap_or(Self::BOUNDS.len())] += 1;
        self.sum += error;
    }
}

// === impl EngineStats ===

impl EngineStats {
    /// How long the queued contexts take at the measured rate; nothing until one was measured.
    #[must_use]
    pub fn prefill_wait(&self) -> Duration {
        if self.prefill_tokens_per_s == 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(self.backlog.total() as f64 / self.prefill_tokens_per_s)
    }
}

/// No step is shorter, whatever the clock says: one that stood still meanwhile would make a rate without
/// end, which no router believes, nor anything else that such a worker reports.
const STEP_MIN: Duration = Duration::from_micros(1);

/// The running averages behind [`EngineStats`].
#[derive(Debug)]
pub(crate) struct Meter {
    /// The counts, with the latest averages.
    pub(crate) stats: EngineStats,
    /// Forecasts of steps' times.
    pub(crate) times: StepTimes,
    /// What it costs to get a step onto the device.
    pub(crate) ahead: PlanAhead,
    prefill_tokens: f64,
    prefill_s: f64,
}

// === impl Meter ===

impl Meter {
    /// Has seen nothing yet, and expects what `seed` says.
    pub(crate) fn new(seed: StepSeed) -> Self {
        Self {
            stats: EngineStats::default(),
            times: StepTimes::new(seed),
            ahead: PlanAhead::default(),
            prefill_tokens: 0.0,
            prefill_s: 0.0,
        }
    }

    /// Takes a step's time into account.
    ///
    /// Steps with prefill count for its rate by their size, decode rows included: what counts is how
    /// fast a queue of prompts shrinks beside the decoding that goes on.
    pub(crate) fn step(&mut self, shape: &StepShape, elapsed: Duration) {
        if let Some(off) = self.times.observe(shape, elapsed) {
            self.stats.forecasts.observe(off.abs());
        }
        let prefill_tokens = shape.prompt_tokens;
        self.stats.steps += 1;
        self.stats.prefill_tokens += u64::from(prefill_tokens);
        let elapsed_s = elapsed.max(STEP_MIN).as_secs_f64();
        if prefill_tokens > 0 {
            self.prefill_tokens =
                self.prefill_tokens * (1.0 - NEWEST_SHARE) + f64::from(prefill_tokens);
            self.prefill_s = self.prefill_s * (1.0 - NEWEST_SHARE) + elapsed_s;
            self.stats.prefill_tokens_per_s = self.prefill_tokens / self.prefill_s;
        } else if self.stats.decode_step_s == 0.0 {
            self.stats.decode_step_s = elapsed_s;
        } else {
            self.stats.decode_step_s += NEWEST_SHARE * (elapsed_s - self.stats.decode_step_s);
        }
    }

    /// Begins with the time of a step that nobody had asked for. Of prompts the last counts, of steps without the first.
    pub(crate) fn expect(&mut self, shape: &StepShape, took: Duration) {
        self.times.observe(shape, took);
        let took_s = took.max(STEP_MIN).as_secs_f64();
        if shape.prompt_tokens > 0 {
            self.prefill_tokens = f64::from(shape.prompt_tokens);
            self.prefill_s = took_s;
            self.stats.prefill_tokens_per_s = self.prefill_tokens / self.prefill_s;
        } else if self.stats.decode_step_s == 0.0 {
            self.stats.decode_step_s = took_s;
        }
    }

    /// Takes a sequence's end into account.
    pub(crate) fn ended(&mut self, output_tokens: u32) {
        self.stats.output.observe(output_tokens);
    }

    /// Takes into account what a step cost the engine's thread.
    pub(crate) fn host(&mut self, cost: Duration, decodes: bool) {
        self.stats.host_s += cost.as_secs_f64();
        if decodes {
            self.stats.decode_steps += 1;
            self.stats.decode_host_s += cost.as_secs_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefill_rate_weighs_chunks_by_size() {
        let mut meter = Meter::new(StepSeed::CPU);
        meter.step(&StepShape::chunk(0, 1000), Duration::from_secs(1));
        meter.step(&StepShape::chunk(0, 2), Duration::from_millis(10));
        assert!((850.0..1000.0).contains(&meter.stats.prefill_tokens_per_s));
    }

    #[test]
    fn a_clock_that_stood_still_makes_no_endless_rate() {
        let mut meter = Meter::new(StepSeed::CPU);
        meter.step(&StepShape::chunk(0, 1000), Duration::ZERO);
        assert!(meter.stats.prefill_tokens_per_s.is_finite());
        meter.step(&StepShape::row(9), Duration::ZERO);
        assert!(meter.stats.decode_step_s > 0.0);
    }

    #[test]
    fn errors_of_forecasts_are_counted_by_size() {
        let mut errors = ForecastErrors::default();
        [0.0, 0.01, 0.04, 3.0].into_iter().for_each(|error| errors.observe(error));
        assert_eq!(errors.counts, [2, 0, 1, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn the_decode_step_follows_a_change_of_load() {
        let mut meter = Meter::new(StepSeed::CPU);
        meter.step(&StepShape::row(9), Duration::from_millis(10));
        assert!((meter.stats.decode_step_s - 0.010).abs() < 1e-9);
        for _ in 0..50 {
            meter.step(&StepShape::row(9), Duration::from_millis(20));
        }
        assert!((meter.stats.decode_step_s - 0.020).abs() < 1e-4);
        assert_eq!(meter.stats.prefill_tokens_per_s, 0.0, "no prefill was measured");
    }
}
