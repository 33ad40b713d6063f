//! How long answers get: what a sequence may still need, and when one ends.

use super::prior::OUTPUT_TOKENS;

/// Sequences that the estimate remembers: the last minute or so of a busy worker.
const MEMORY: f64 = 64.0;

/// Sequences after which what was seen is believed.
const EVIDENCE: f64 = 8.0;

/// Output that is expected at most before that: public chat traces have a median between 100 and 400 tokens.
const OUTPUT_TOKENS_PRIOR: u32 = 512;

/// Standard deviations above the mean that are promised to each sequence. Many together need less, and the few
/// that need more take it from the youngest.
const DEVIATIONS: f64 = 2.0;

/// A running estimate of the tokens that sequences generate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OutputLengths {
    weight: f64,
    mean: f64,
    variance: f64,
}

// === impl OutputLengths ===

impl OutputLengths {
    /// A sequence has ended after `tokens`.
    pub fn observe(&mut self, tokens: u32) {
        self.weight = (self.weight + 1.0).min(MEMORY);
        let (share, off) = (self.weight.recip(), f64::from(tokens) - self.mean);
        self.mean += share * off;
        self.variance = (1.0 - share) * (self.variance + share * off * off);
    }

    /// The mean; 0 until a sequence has ended.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The mean, or before anything has ended what is usual.
    #[must_use]
    pub fn mean_or_usual(&self) -> f64 {
        if self.weight > 0.0 { self.mean } else { OUTPUT_TOKENS }
    }

    /// The tokens to count on for a sequence that may have `tokens_max`.
    #[must_use]
    pub fn likely_max(&self, tokens_max: u32) -> u32 {
        if self.weight < EVIDENCE {
            return tokens_max.min(OUTPUT_TOKENS_PRIOR);
        }
        let likely = self.mean + DEVIATIONS * self.variance.sqrt();
        tokens_max.min(likely.ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lengths: impl IntoIterator<Item = u32>) -> OutputLengths {
        let mut output = OutputLengths::default();
        lengths.into_iter().for_each(|tokens| output.observe(tokens));
        output
    }

    #[test]
    fn before_anything_has_ended_a_usual_answer_is_expected() {
        assert_eq!(seen([]).likely_max(100), 100);
        assert_eq!(seen([]).likely_max(100_000), OUTPUT_TOKENS_PRIOR);
        assert_eq!(seen([5; 3]).likely_max(100_000), OUTPUT_TOKENS_PRIOR);
    }

    #[test]
    fn nearly_all_sequences_need_no_more_than_is_likely() {
        let lengths: Vec<u32> = (0..200).map(|turn| 50 + turn * 37 % 100).collect();
        let output = seen(lengths.iter().copied());
        assert!((90.0..110.0).contains(&output.mean()), "{output:?}");
        let likely = output.likely_max(1000);
        let within = lengths.iter().filter(|&&tokens| tokens <= likely).count();
        assert!(within >= 190 && likely < 200, "{within} of 200 within {likely}");
        assert_eq!(output.likely_max(60), 60);
    }

    #[test]
    fn the_estimate_follows_a_change() {
        let output = seen(std::iter::repeat_n(10, 100).chain(std::iter::repeat_n(500, 300)));
        assert!(output.mean() > 480.0, "{output:?}");
    }
}
