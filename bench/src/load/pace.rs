//! When sessions begin.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Arrivals;

/// Gives each session its time.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    arrivals: Arrivals,
    rng: ChaCha8Rng,
    /// Where the random arrivals have come to.
    at: Duration,
}

// === impl Pace ===

impl Pace {
    /// Counts from `start`.
    pub(super) fn new(start: Instant, arrivals: Arrivals, seed: u64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(!seed);
        Self { start, arrivals, rng, at: Duration::ZERO }
    }

    /// What it counts from.
    pub(super) fn start(&self) -> Instant {
        self.start
    }

    /// When the next session is to begin; `own` is its own time, if it has one.
    pub(super) fn next(&mut self, own: Option<Duration>) -> Instant {
        match (own, self.arrivals) {
            (Some(at), _) => self.start + at,
            (None, Arrivals::Closed { .. } | Arrivals::Recorded { .. }) => self.start,
            (None, Arrivals::Poisson { sessions_per_s, .. }) => {
                self.at += exponential(sessions_per_s, &mut self.rng);
                self.start + self.at
            }
        }
    }
}

/// A time between two arrivals of a Poisson process, by inversion.
fn exponential(per_s: f64, rng: &mut ChaCha8Rng) -> Duration {
    let uniform: f64 = rng.random();
    let seconds = -(1.0 - uniform).ln() / per_s.max(1e-6);
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_arrivals_keep_their_rate_and_their_variance() {
        let arrivals = Arrivals::Poisson { sessions_per_s: 50.0, in_flight_max: 1 };
        let mut pace = Pace::new(Instant::now(), arrivals, 9);
        let mut times = vec![pace.start()];
        times.extend((0..20_000).map(|_| pace.next(None)));
        let gaps: Vec<f64> =
            times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((mean * 50.0 - 1.0).abs() < 0.03, "mean {mean}");
        // An exponential's standard deviation is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "deviation {}", variance.sqrt());
    }

    #[test]
    fn a_sessions_own_time_comes_first() {
        let mut pace = Pace::new(Instant::now(), Arrivals::Closed { clients: 1 }, 0);
        assert_eq!(pace.next(None), pace.start());
        let at = Duration::from_secs(3);
        assert_eq!(pace.next(Some(at)), pace.start() + at);
    }
}
