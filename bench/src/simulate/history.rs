//! How a run went on, over its time.

use std::time::Duration;

use super::engine::Engine;
use super::report::Moment;
use crate::load::recorder::Cached;

/// Moments that are kept at most; then every second one is forgotten, and the rest are twice as far apart.
const MOMENTS_MAX: usize = 240;

#[derive(Debug)]
pub(super) struct History {
    every: Duration,
    moments: Vec<Moment>,
    /// When the latest one was, how long each engine had computed by then, and what had been found in caches.
    latest: (Duration, Vec<Duration>, Cached),
}

// === impl History ===

impl History {
    pub(super) fn new(workers: usize) -> Self {
        let latest = (Duration::ZERO, vec![Duration::ZERO; workers], Cached::default());
        Self { every: Duration::from_secs(1), moments: Vec::new(), latest }
    }

    /// Takes the state down, if it is time.
    pub(super) fn note(&mut self, now: Duration, engines: &[Engine], cached: Cached) {
        let (at, busy, before) = &self.latest;
        let since = now.saturating_sub(*at);
        if since < self.every {
            return;
        }
        let share = |(engine, busy): (&Engine, &Duration)| {
            100.0 * (engine.busy() - *busy).as_secs_f64() / since.as_secs_f64()
        };
        self.moments.push(Moment {
            at_s: now.as_secs_f64(),
            busy_percent: engines.iter().zip(busy).map(share).collect(),
            cached_percent: cached.percent_since(*before),
        });
        self.latest = (now, engines.iter().map(Engine::busy).collect(), cached);
        if self.moments.len() == MOMENTS_MAX {
            self.thin();
        }
    }

    pub(super) fn told(&mut self) -> Vec<Moment> {
        std::mem::take(&mut self.moments)
    }

    fn thin(&mut self) {
        self.every *= 2;
        let pairs = self.moments.chunks_exact(2);
        self.moments = pairs.map(|pair| pair[0].joined(&pair[1])).collect();
    }
}
