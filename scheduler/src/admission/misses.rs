//! How far forecasts were from what came.

use std::time::{Duration, Instant};

use super::unlearned_s;

/// First tokens that the estimate remembers, and after which it is believed: the last seconds of a busy router.
const MEMORY: f64 = 32.0;

/// Standard deviations above the mean that are counted on. A request that comes late has taken what another would have come in
/// time with, so it costs as much as one that is refused in vain, and to be surer of each would save nothing. None or two of
/// them change goodput by less than half a percent (docs/perf/2026-11-30-h200-load.md).
const DEVIATIONS: f64 = 1.0;

/// The part of a target that stays free however right forecasts were: answers have a way to their clients, too.
const MARGIN_MIN: f64 = 0.05;

/// What was learned under one load says little about the next: half of it after this time without news.
const HALF_LIFE: Duration = Duration::from_secs(10);

/// By how much first tokens came later than they were expected to, lately. That some came sooner makes up for none that was
/// late: short prompts pass long ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Misses {
    weight: f64,
    mean_s: f64,
    variance: f64,
    heard: Option<Instant>,
}

// === impl Misses ===

impl Misses {
    /// A first token came `late_s` after it was expected; before, where that is negative.
    pub fn observe(&mut self, late_s: f64, now: Instant) {
        if !late_s.is_finite() {
            return;
        }
        self.weight = (self.weight + 1.0).min(MEMORY);
        let (share, off) = (self.weight.recip(), late_s.max(0.0) - self.mean_s);
        self.mean_s += share * off;
        self.variance = (1.0 - share) * (self.variance + share * off * off);
        self.heard = Some(now);
    }

    /// What forecasts are to leave of a target, so that most first tokens come by then.
    #[must_use]
    pub fn margin_s(&self, target: Duration, now: Instant) -> f64 {
        let known = self.known(now);
        let likely_max_s = self.mean_s + DEVIATIONS * self.variance.sqrt();
        let margin_s = known * likely_max_s + (1.0 - known) * unlearned_s(target);
        margin_s.max(MARGIN_MIN * target.as_secs_f64())
    }

    /// How far what was seen is believed: from 0 to 1.
    fn known(&self, now: Instant) -> f64 {
        let Some(heard) = self.heard else { return 0.0 };
        let silence = now.saturating_duration_since(heard).as_secs_f64();
        self.weight / MEMORY * (-silence / HALF_LIFE.as_secs_f64()).exp2()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn seen(late: impl IntoIterator<Item = f64>, now: Instant) -> Misses {
        let mut misses = Misses::default();
        late.into_iter().for_each(|late_s| misses.observe(late_s, now));
        misses
    }

    #[test]
    fn most_first_tokens_come_by_what_is_left_free() {
        let (now, target) = (Instant::now(), Duration::from_secs(10));
        let late: Vec<f64> = (0..200).map(|turn| f64::from(turn * 37 % 100) / 50.0).collect();
        let margin_s = seen(late.iter().copied(), now).margin_s(target, now);
        let within = late.iter().filter(|&&late_s| late_s <= margin_s).count();
        assert!(
            (150..=190).contains(&within) && margin_s < 2.0,
            "{within} of 200 within {margin_s}"
        );
    }

    /// What is left free of 10 s, where first tokens came so late and were heard of so long ago.
    #[rstest]
    #[case::nobody_knows(&[], 0, 3.0)]
    #[case::few_tell_little(&[0.0; 8], 0, 2.25)]
    #[case::all_were_in_time(&[0.0; 50], 0, 0.5)]
    #[case::all_came_early(&[-5.0; 50], 0, 0.5)]
    #[case::all_came_late(&[5.0; 50], 0, 5.0)]
    #[case::what_was_learned_is_half_forgotten(&[0.0; 50], 10, 1.5)]
    #[case::and_then_wholly(&[9.0; 50], 200, 3.0)]
    #[case::nonsense_is_not_learned(&[f64::NAN; 50], 0, 3.0)]
    fn as_much_is_left_free(#[case] late: &[f64], #[case] silence_s: u64, #[case] want_s: f64) {
        let now = Instant::now();
        let misses = seen(late.iter().copied(), now);
        let margin_s =
            misses.margin_s(Duration::from_secs(10), now + Duration::from_secs(silence_s));
        assert!((margin_s - want_s).abs() < 0.01, "{margin_s}");
    }
}
