//! How a run went on, over its time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine::Engine;
use crate::load::Slo;
use crate::load::recorder::Measured;

/// Moments that are kept at most; then each two become one, and the next are twice as long.
const MOMENTS_MAX: usize = 64;

/// The first moments' length.
const EVERY: Duration = Duration::from_secs(1);

/// A short while of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Its end, from the run's beginning.
    pub at_s: f64,
    /// How long it was.
    pub seconds: f64,
    /// What was answered in it.
    pub answered: Answered,
    /// The part of the time in which each worker computed, percent.
    pub busy_percent: Vec<f64>,
}

/// Some answers, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// How many.
    pub requests: u64,
    /// Those that had the service wanted.
    pub good: u64,
    /// Times to the first token.
    pub ttft_ms: f64,
    /// Mean times between tokens.
    pub tpot_ms: f64,
    /// Those that have one.
    pub with_tpot: u64,
    /// Prompt tokens.
    pub input_tokens: u64,
    /// Those found in a cache.
    pub cached_tokens: u64,
}

#[derive(Debug)]
pub(super) struct History {
    slo: Slo,
    every: Duration,
    moments: Vec<Moment>,
    /// When the latest moment ended, and how long each engine had computed by then.
    since: (Duration, Vec<Duration>),
    answered: Answered,
}

// === impl History ===

impl History {
    pub(super) fn new(workers: usize, slo: Slo) -> Self {
        let since = (Duration::ZERO, vec![Duration::ZERO; workers]);
        Self { slo, every: EVERY, moments: Vec::new(), since, answered: Answered::default() }
    }

    pub(super) fn answered(&mut self, request: &Measured) {
        self.answered = self.answered.and(&Answered::of(request, &self.slo));
    }

    /// Ends a moment, if it is time.
    pub(super) fn note(&mut self, now: Duration, engines: &[Engine]) {
        let (at, busy) = &self.since;
        let took = now.saturating_sub(*at);
        if took < self.every {
            return;
        }
        let percent = |(engine, before): (&Engine, &Duration)| {
            100.0 * (engine.busy() - *before).as_secs_f64() / took.as_secs_f64()
        };
        self.moments.push(Moment {
            at_s: now.as_secs_f64(),
            seconds: took.as_secs_f64(),
            answered: std::mem::take(&mut self.answered),
            busy_percent: engines.iter().zip(busy).map(percent).collect(),
        });
        self.since = (now, engines.iter().map(Engine::busy).collect());
        if self.moments.len() == MOMENTS_MAX {
            self.every *= 2;
            self.moments = self.moments.chunks_exact(2).map(Moment::joined).collect();
        }
    }

    pub(super) fn told(self) -> Vec<Moment> {
        self.moments
    }
}

// === impl Moment ===

impl Moment {
    /// Two of the same length as one.
    fn joined(pair: &[Self]) -> Self {
        let [first, next] = pair else { unreachable!("they come in pairs") };
        let mean = |(a, b): (&f64, &f64)| f64::midpoint(*a, *b);
        Self {
            at_s: next.at_s,
            seconds: first.seconds + next.seconds,
            answered: first.answered.and(&next.answered),
            busy_percent: first.busy_percent.iter().zip(&next.busy_percent).map(mean).collect(),
        }
    }

    pub(super) fn goodput_per_s(&self) -> f64 {
        self.answered.good as f64 / self.seconds
    }
}

// === impl Answered ===

impl Answered {
    fn of(request: &Measured, slo: &Slo) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let tpot = request.tpot();
        Self {
            requests: 1,
            good: request.is_good(slo).into(),
            ttft_ms: ms(request.waited + request.ttft),
            tpot_ms: tpot.map_or(0.0, ms),
            with_tpot: tpot.is_some().into(),
            input_tokens: request.input_tokens,
            cached_tokens: request.cached_tokens,
        }
    }

    fn and(&self, more: &Self) -> Self {
        Self {
            requests: self.requests + more.requests,
            good: self.good + more.good,
            ttft_ms: self.ttft_ms + more.ttft_ms,
            tpot_ms: self.tpot_ms + more.tpot_ms,
            with_tpot: self.with_tpot + more.with_tpot,
            input_tokens: self.input_tokens + more.input_tokens,
            cached_tokens: self.cached_tokens + more.cached_tokens,
        }
    }

    pub(super) fn ttft_mean_ms(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.ttft_ms / self.requests as f64)
    }

    pub(super) fn tpot_mean_ms(&self) -> Option<f64> {
        (self.with_tpot > 0).then(|| self.tpot_ms / self.with_tpot as f64)
    }

    pub(super) fn cached_percent(&self) -> Option<f64> {
        let share = self.cached_tokens as f64 / self.input_tokens as f64;
        (self.input_tokens > 0).then_some(100.0 * share)
    }
}
