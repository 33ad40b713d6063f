//! How long a step takes: predicted from what is in it, learned from those that ran.
//!
//! A step's time is a sum: something fixed, the products of its rows (a curve, since few rows cost what reading the
//! weights costs and many what multiplying costs, and a staircase, since they are multiplied in tiles), attention over
//! pairs of a prompt's tokens, reading the KV of rows that decode, and something a row, a prompt, and for both beside each
//! other. A table measured once says how these are related; the steps of this engine say how large they are here
//! (`factors`).

mod factors;
mod seed;
mod tiles;

use std::iter::Sum;
use std::ops::{Add, Sub};
use std::time::Duration;

use self::factors::{Factors, SURPRISE, TERMS, Terms};
pub use self::seed::StepSeed;

/// Steps that are looked at before any is learned from: the first bring code and weights in from where they were.
const FIRST_LOOKS: usize = 8;

/// Prompt tokens whose time is relied on before any were seen.
const FAMILIAR_MIN: u32 = 128;

/// How much of the mean error one new step makes.
const NEWEST_SHARE: f64 = 0.02;

/// A forecast may be off by this many mean errors before a target is missed.
const DOUBTS: f64 = 2.0;

/// However wrong forecasts were, no step is thought to take longer than this many times its forecast.
const DOUBT_MAX: f64 = 1.5;

/// Rows of the last tile cost too much where it is this many times what others cost: the second of two that are computed
/// as one is nearly free, the first 1.8 times as dear as others even if it is full.
const OVERPRICED: f64 = 1.5;

/// No time is taken to be shorter, whatever the clock says.
const STEP_MIN_S: f64 = 1e-6;
/// Nor longer: what no clock can add would end whoever waits for a step.
const STEP_MAX_S: f64 = 3600.0;

/// What is in a step, as far as its time depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepShape {
    /// Prompts of which a chunk is computed.
    pub prompts: u32,
    /// Tokens of all chunks.
    pub prompt_tokens: u32,
    /// Pairs of a chunk's token and one before it or itself: what attention computes for prompts.
    pub prompt_pairs: u64,
    /// Sequences that get one token.
    pub decode_rows: u32,
    /// Tokens of their contexts: what attention reads for them.
    pub decode_context: u64,
}

/// Forecasts of steps' times.
#[derive(Clone, Debug)]
pub struct StepTimes {
    seed: StepSeed,
    /// By how much this engine is slower than the seed's, once it was seen.
    scale: f64,
    first: Vec<(StepShape, f64)>,
    factors: Factors,
    error: f64,
    /// Prompt tokens of the largest step that was forecast about right.
    largest: u32,
}

// === impl StepShape ===

impl StepShape {
    /// A chunk of `tokens` tokens of a prompt of which `filled` have KV.
    #[must_use]
    pub fn chunk(filled: u32, tokens: u32) -> Self {
        let (filled, count) = (u64::from(filled), u64::from(tokens));
        let prompt_pairs = count * filled + count * (count + 1) / 2;
        Self { prompts: 1, prompt_tokens: tokens, prompt_pairs, ..Self::default() }
    }

    /// The row of a sequence that decodes.
    ///
    /// - `context`: its tokens, the new one included.
    #[must_use]
    pub fn row(context: u32) -> Self {
        Self { decode_rows: 1, decode_context: context.into(), ..Self::default() }
    }

    /// What `tokens` more tokens of a sequence are, of which `filled` have KV.
    #[must_use]
    pub fn part(filled: u32, tokens: u32) -> Self {
        if tokens == 1 { Self::row(filled + 1) } else { Self::chunk(filled, tokens) }
    }

    /// Rows of its products.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.prompt_tokens + self.decode_rows
    }
}

impl Add for StepShape {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompts: self.prompts + other.prompts,
            prompt_tokens: self.prompt_tokens + other.prompt_tokens,
            prompt_pairs: self.prompt_pairs + other.prompt_pairs,
            decode_rows: self.decode_rows + other.decode_rows,
            decode_context: self.decode_context + other.decode_context,
        }
    }
}

impl Sub for StepShape {
    type Output = Self;

    /// Without what was added before.
    fn sub(self, other: Self) -> Self {
        Self {
            prompts: self.prompts - other.prompts,
            prompt_tokens: self.prompt_tokens - other.prompt_tokens,
            prompt_pairs: self.prompt_pairs - other.prompt_pairs,
            decode_rows: self.decode_rows - other.decode_rows,
            decode_context: self.decode_context - other.decode_context,
        }
    }
}

impl Sum for StepShape {
    fn sum<I: Iterator<Item = Self>>(shapes: I) -> Self {
        shapes.fold(Self::default(), Add::add)
    }
}

// === impl StepTimes ===

impl StepTimes {
    /// Knows what the seed knows.
    #[must_use]
    pub fn new(seed: StepSeed) -> Self {
        let factors = Factors::new();
        let first = Vec::with_capacity(FIRST_LOOKS);
        Self { seed, scale: 1.0, first, factors, error: 0.0, largest: 0 }
    }

    /// How long such a step is expected to take, seconds.
    #[must_use]
    pub fn forecast_s(&self, shape: &StepShape) -> f64 {
        self.factors.predict(&self.terms(shape)).clamp(STEP_MIN_S, STEP_MAX_S)
    }

    /// The same.
    #[must_use]
    pub fn forecast(&self, shape: &StepShape) -> Duration {
        Duration::from_secs_f64(self.forecast_s(shape))
    }

    /// What such a step will hardly exceed, as far as forecasts have been right: what targets are held to.
    #[must_use]
    pub fn forecast_at_most_s(&self, shape: &StepShape) -> f64 {
        self.forecast_s(shape) * (1.0 + DOUBTS * self.error).min(DOUBT_MAX)
    }

    /// Prompts' rows of the last tile, where they cost much more than other rows of the step do, beside attention; else none.
    #[must_use]
    pub fn overhang(&self, shape: &StepShape) -> u32 {
        let (rows, last) = (shape.rows(), self.seed.tiles.last(shape.rows()));
        if last == 0 || last >= shape.prompt_tokens {
            return 0;
        }
        let without = StepShape { prompt_tokens: shape.prompt_tokens - last, ..*shape };
        let others = StepShape { prompt_tokens: rows - last, ..StepShape::default() };
        let price_s = self.forecast_s(&others) / f64::from(rows - last);
        let saved_s = self.forecast_s(shape) - self.forecast_s(&without);
        if saved_s > OVERPRICED * price_s * f64::from(last) { last } else { 0 }
    }

    /// Whether a step becomes shorter without `part` of a chunk by much more than the next one, which has `next` in it, becomes
    /// longer.
    #[must_use]
    pub fn is_cheaper_later(&self, shape: &StepShape, part: StepShape, next: StepShape) -> bool {
        let without = *shape - StepShape { prompts: 0, ..part };
        let saved_s = self.forecast_s(shape) - self.forecast_s(&without);
        let alone_s = if next.rows() == 0 { 0.0 } else { self.forecast_s(&next) };
        saved_s > OVERPRICED * (self.forecast_s(&(next + part)) - alone_s)
    }

    /// Learns from a step that ran; returns by how much of its time it had been forecast too long (above zero) or too
    /// short, `None` while there is nothing to forecast from.
    pub fn observe(&mut self, shape: &StepShape, took: Duration) -> Option<f64> {
        let took_s = took.as_secs_f64().clamp(STEP_MIN_S, STEP_MAX_S);
        if took_s <= SURPRISE * self.forecast_s(shape) {
            self.largest = self.largest.max(shape.prompt_tokens);
        }
        if self.first.len() < FIRST_LOOKS {
            self.look(shape, took_s);
            return None;
        }
        let off = (self.forecast_s(shape) - took_s) / took_s;
        self.error += NEWEST_SHARE * (off.abs().min(1.0) - self.error);
        self.factors.observe(&self.terms(shape), took_s);
        Some(off)
    }

    /// Prompt tokens of a step up to which forecasts are to be relied on: twice those of a step that was. How another machine's
    /// steps grow is no promise.
    #[must_use]
    pub fn familiar_tokens(&self) -> u32 {
        self.largest.saturating_mul(2).max(FAMILIAR_MIN)
    }

    /// The mean of how far forecasts were off lately, as a share of the time that steps took.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.error
    }

    /// Finds the scale: the median, which a slow first step doesn't move.
    fn look(&mut self, shape: &StepShape, took_s: f64) {
        self.first.push((*shape, took_s));
        let blank = Factors::new();
        let seeded = |shape| blank.predict(&self.seed.terms(shape));
        let mut ratios: Vec<f64> =
            self.first.iter().map(|(shape, took_s)| took_s / seeded(shape)).collect();
        ratios.sort_by(f64::total_cmp);
        self.scale = ratios[ratios.len() / 2];
        self.factors = blank;
        let first = std::mem::take(&mut self.first);
        for (shape, took_s) in &first {
            let terms = self.terms(shape);
            // Those that brought something in say nothing.
            if *took_s <= SURPRISE * self.factors.predict(&terms) {
                self.factors.observe(&terms, *took_s);
            }
        }
        self.first = first;
    }

    fn terms(&self, shape: &StepShape) -> Terms {
        let mut terms = self.seed.terms(shape);
        terms.iter_mut().for_each(|term| *term *= self.scale);
        terms
    }
}

const _: () = assert!(TERMS <= 20, "an update costs the square of this");

#[cfg(test)]
mod tests;
