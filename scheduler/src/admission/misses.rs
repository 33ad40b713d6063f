//! How far forecasts were from what came.

use std::time::{Duration, Instant};

/// First tokens that the estimate remembers: the last seconds of a busy router.
const MEMORY: f64 = 32.0;

/// Standard deviations above the mean that are counted on: nearly all first tokens come by then.
const DEVIATIONS: f64 = 2.0;

/// What was learned under one load says little about the next: half of it after this time without news.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// By how much first tokens came later than they were expected to, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Misses {
    weight: f64,
    mean_s: f64,
    variance: f64,
    heard: Option<Instant>,
}

// === impl Misses ===

impl Misses {
    /// A first token came `late_s` after it was expected; before it, where that is negative.
    pub fn observe(&mut self, late_s: f64, now: Instant) {
        if !late_s.is_finite() {
            return;
        }
        self.weight = (self.weight + 1.0).min(MEMORY);
        let (share, off) = (self.weight.recip(), late_s - self.mean_s);
        self.mean_s += share * off;
        self.variance = (1.0 - share) * (self.variance + share * off * off);
        self.heard = Some(now);
    }

    /// By how much nearly all first tokens are at most later than they are expected to.
    #[must_use]
    pub fn likely_max_s(&self, now: Instant) -> f64 {
        let Some(heard) = self.heard else { return 0.0 };
        let silence = now.saturating_duration_since(heard).as_secs_f64();
        let left = (-silence / HALF_LIFE.as_secs_f64()).exp2();
        left * (self.mean_s + DEVIATIONS * self.variance.sqrt()).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(late: impl IntoIterator<Item = f64>, now: Instant) -> Misses {
        let mut misses = Misses::default();
        late.into_iter().for_each(|late_s| misses.observe(late_s, now));
        misses
    }

    #[test]
    fn nearly_all_first_tokens_come_by_what_is_likely() {
        let now = Instant::now();
        assert_eq!(seen([], now).likely_max_s(now), 0.0);
        assert_eq!(seen([-0.5; 50], now).likely_max_s(now), 0.0, "they come early");
        let late: Vec<f64> = (0..200).map(|turn| f64::from(turn * 37 % 100) / 50.0).collect();
        let likely_s = seen(late.iter().copied(), now).likely_max_s(now);
        let within = late.iter().filter(|&&late_s| late_s <= likely_s).count();
        assert!(within >= 190 && likely_s < 2.5, "{within} of 200 within {likely_s}");
    }

    #[test]
    fn what_was_learned_is_forgotten() {
        let now = Instant::now();
        let misses = seen([f64::NAN, 2.0, 2.0], now);
        assert!((misses.likely_max_s(now) - 2.0).abs() < 2.0);
        assert!(misses.likely_max_s(now + 20 * HALF_LIFE) < 0.001);
    }
}
