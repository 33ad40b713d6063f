//! What things cost, in seconds: fitted from what workers report, sane before the first report.
//!
//! Three quantities are fitted for each worker: the time a prompt token takes, the time of a decode
//! step as a line over the batch size, and the time that a hand-off from it adds as a line over the prompt's
//! tokens. A worker's own evidence is blended with that of its pool by how much of it there is, so
//! one slow first step (a cold cache, a kernel being compiled) condemns nobody, and a worker that
//! has been idle for long is thought average again and tried.

mod fit;
mod output;
pub mod prior;
mod steps;

use std::fmt;

pub use output::OutputLengths;
pub use steps::{StepSeed, StepShape, StepTimes};
use words::{HandoffTotals, Load};

use self::fit::{AssumedLine, LeastFit, LineFit, MeanFit};

/// Seconds a prompt token takes before anything was measured.
const PREFILL_S_PER_TOKEN_PRIOR: f64 = 1.0 / prior::PREFILL_TOKENS_PER_S;

/// A decode step over its batch size before anything was measured: the same model takes 4.9 ms for
/// one sequence and 17.2 ms for 256, at a context of 1,120 tokens.
const DECODE_STEP_PRIOR: AssumedLine =
    AssumedLine { at_zero: prior::DECODE_STEP_S, per_unit: 4.8e-5, doubt: 4.0, scales: true };

/// What a hand-off adds to a prompt before any was measured: two calls and a commit record, and the
/// last layers' pages, which nothing is left to hide behind (128 KiB a token, an eighth of it not
/// hidden, at 10 GB/s). Assumed, not measured.
const HANDOFF_PRIOR: AssumedLine =
    AssumedLine { at_zero: 3e-3, per_unit: 1.6e-6, doubt: 256.0 * 256.0, scales: false };

/// The part of its time that a worker is thought to give to prompts at most: beyond, what is measured says little, and the
/// sequences beside them would never end.
const PROMPTS_SHARE_MAX: f64 = 0.95;

/// What is known about the speed of one worker, or on average about a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    prefill_s_per_token: MeanFit,
    /// The same where hardly anything else is in a step.
    alone_s_per_token: LeastFit,
    decode_step_s: LineFit,
    handoff_s: LineFit,
    /// Prompt tokens computed in a second of the clock, idle time included.
    prompt_tokens_per_s: MeanFit,
    /// The prefill rate last reported: the same number again is no new evidence.
    reported_prefill: f64,
    /// The hand-offs that were learned from.
    reported_handoffs: HandoffTotals,
}

/// A worker's rates beside those of its pool.
#[derive(Clone, Copy, Debug)]
pub struct Estimates<'a> {
    /// The worker's own.
    pub own: &'a Rates,
    /// Those of the workers it is compared with, from [`Rates::pooled`].
    pub pool: &'a Rates,
}

/// The terms of one option, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// Until the prompts ahead have been computed.
    pub queue_s: f64,
    /// To compute this prompt.
    pub prefill_s: f64,
    /// What the hand-off adds.
    pub handoff_s: f64,
    /// Until the worker that generates has room, and its step.
    pub decode_s: f64,
    /// The tokens behind the first, at the pace of the worker that generates.
    pub tokens_s: f64,
    /// Time that others lose: whose tokens wait while the prompt is computed, whose steps get longer by a row, whose
    /// prompts come later.
    pub stall_s: f64,
}

// === impl Rates ===

impl Rates {
    /// Learns from a worker's report.
    ///
    /// A value is evidence only where the worker was at it: an idle worker repeats its last decode
    /// step and its last prefill rate, and each repetition makes them count for a little less. What it
    /// measured before anybody asked is better than nothing: a step of one sequence.
    pub fn observe(&mut self, load: &Load) {
        let rate = load.prefill_tokens_per_s;
        if is_measured(rate) && rate != self.reported_prefill {
            self.reported_prefill = rate;
            self.prefill_s_per_token.observe(1.0 / rate);
            self.alone_s_per_token.observe(1.0 / rate);
        } else {
            self.prefill_s_per_token.age();
        }
        if is_measured(load.decode_step_s) && (load.running > 0 || self.decode_step_s.is_empty()) {
            self.decode_step_s.observe(load.running.max(1).into(), load.decode_step_s);
        } else {
            self.decode_step_s.age();
        }
        self.observe_handoffs(load.handoffs);
    }

    /// Learns how much of its time a worker computes prompts.
    ///
    /// - `tokens`: prompt tokens computed in `seconds`, between two reports.
    pub fn observe_prompts(&mut self, tokens: u64, seconds: f64) {
        if seconds > 0.0 {
            self.prompt_tokens_per_s.observe(tokens as f64 / seconds);
        }
    }

    /// The mean of those since the last report is one observation: the mean of a line's points lies on the line.
    fn observe_handoffs(&mut self, totals: HandoffTotals) {
        let news = totals.since(self.reported_handoffs);
        self.reported_handoffs = totals;
        match news {
            Some(news) => self.handoff_s.observe(news.mean_tokens(), news.mean_added_s()),
            None => self.handoff_s.age(),
        }
    }

    /// The average of several workers' rates, each weighed by its evidence.
    #[must_use]
    pub fn pooled<'a>(workers: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut pool = Self::default();
        for worker in workers {
            pool.prefill_s_per_token.merge(&worker.prefill_s_per_token);
            pool.alone_s_per_token.merge(worker.alone_s_per_token);
            pool.decode_step_s.merge(&worker.decode_step_s);
            pool.handoff_s.merge(&worker.handoff_s);
        }
        pool
    }
}

fn is_measured(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

// === impl Estimates ===

impl Estimates<'_> {
    /// Seconds to compute `tokens` prompt tokens, nothing ahead of them.
    #[must_use]
    pub fn prefill_s(&self, tokens: f64) -> f64 {
        let pool = self.pool.prefill_s_per_token.mean_or(PREFILL_S_PER_TOKEN_PRIOR);
        tokens * self.own.prefill_s_per_token.blend(pool)
    }

    /// The part of a worker's time that goes to prompts, lately.
    #[must_use]
    pub fn prompts_share(&self) -> f64 {
        self.lost_s(self.own.prompt_tokens_per_s.mean_or(0.0)).min(PROMPTS_SHARE_MAX)
    }

    /// Seconds by which sequences that are generated beside `tokens` prompt tokens fall behind.
    ///
    /// A step that has both computes the sequences' rows, too, and gives each its token; what a worker measures of prompts beside
    /// many sequences is mostly these. So it is the fastest that was seen in the pool.
    #[must_use]
    pub fn lost_s(&self, tokens: f64) -> f64 {
        let alone_s = self.pool.alone_s_per_token.least_or(f64::INFINITY);
        self.prefill_s(tokens).min(tokens * alone_s)
    }

    /// Seconds of a decode step with `sequences` in the batch.
    #[must_use]
    pub fn decode_step_s(&self, sequences: u32) -> f64 {
        let (at, prior) = (sequences.into(), self.decode_step_prior());
        let pool = self.pool.decode_step_s.at_or(at, &prior);
        self.own.decode_step_s.blend(at, &prior, pool)
    }

    /// A sequence more costs a step as much as a prompt's token at least: the same products have one row more. Where
    /// reading the weights hides that, it is little; a CPU hides nothing, and a crowd is seen to be slow before it is there.
    fn decode_step_prior(&self) -> AssumedLine {
        let per_unit = DECODE_STEP_PRIOR.per_unit.max(self.prefill_s(1.0));
        AssumedLine { per_unit, ..DECODE_STEP_PRIOR }
    }

    /// Seconds that a hand-off of `tokens` tokens adds on average, whichever worker sends it.
    #[must_use]
    pub fn pooled_handoff_s(&self, tokens: u32) -> f64 {
        let at = tokens.into();
        self.pool.handoff_s.blend(at, &HANDOFF_PRIOR, HANDOFF_PRIOR.at(at))
    }

    /// Seconds that handing over a prompt of `tokens` tokens adds to computing it.
    ///
    /// Where nothing is handed over any more, nobody tells what it costs now, and a pool may have been held up as a whole:
    /// then both fade to what is assumed, and hand-offs are tried again.
    #[must_use]
    pub fn handoff_s(&self, tokens: u32) -> f64 {
        self.own.handoff_s.blend(tokens.into(), &HANDOFF_PRIOR, self.pooled_handoff_s(tokens))
    }
}

// === impl Terms ===

impl Terms {
    /// Expected time to the first token.
    #[must_use]
    pub fn ttft_s(&self) -> f64 {
        self.queue_s + self.prefill_s + self.handoff_s + self.decode_s
    }

    /// What options are compared by: everybody's waiting, in seconds.
    #[must_use]
    pub fn cost_s(&self) -> f64 {
        self.ttft_s() + self.tokens_s + self.stall_s
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue_s, prefill_s, handoff_s, decode_s, tokens_s, stall_s } = self;
        write!(f, "queue {queue_s:.4} + prefill {prefill_s:.4} + hand-off {handoff_s:.4} ")?;
        write!(f, "+ decode {decode_s:.4} s, tokens {tokens_s:.4} s, stall {stall_s:.4} s")
    }
}

impl std::ops::Add for Terms {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            queue_s: self.queue_s + other.queue_s,
            prefill_s: self.prefill_s + other.prefill_s,
            handoff_s: self.handoff_s + other.handoff_s,
            decode_s: self.decode_s + other.decode_s,
            tokens_s: self.tokens_s + other.tokens_s,
            stall_s: self.stall_s + other.stall_s,
        }
    }
}

#[cfg(test)]
mod tests;
