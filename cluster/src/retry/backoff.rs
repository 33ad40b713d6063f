//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double up to a limit, each drawn from the upper half of its range.
///
/// The jitter keeps a fleet from coming back in step after an outage; it is drawn from a seed, so a
/// test that prints the seed can be run again.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
    random: u64,
}

// === impl Backoff ===

impl Backoff {
    /// Waits of `first`, twice that, and so on to `limit`.
    #[must_use]
    pub fn new(first: Duration, limit: Duration, seed: u64) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self { first, limit: limit.max(first), next: first, random: seed }
    }

    /// A seed that differs between processes and calls.
    #[must_use]
    pub fn seed() -> u64 {
        uuid::Uuid::new_v4().as_u64_pair().0
    }

    /// The next wait: between half of the current range and all of it.
    pub fn delay(&mut self) -> Duration {
        let range = self.next;
        self.next = (range * 2).min(self.limit);
        range / 2 + range.mul_f64(self.unit() / 2.0)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// A number in `0.0..1.0`: one step of SplitMix64.
    fn unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_to_the_limit_and_never_pass_it(seed: u64, first_ms in 1u64..500, limit_ms in 500u64..10_000) {
            let (first, limit) = (Duration::from_millis(first_ms), Duration::from_millis(limit_ms));
            let mut backoff = Backoff::new(first, limit, seed);
            let waits: Vec<_> = (0..20).map(|_| backoff.delay()).collect();
            prop_assert!(waits[0] >= first / 2 && waits[0] <= first);
            prop_assert!(waits.iter().all(|wait| *wait <= limit));
            prop_assert!(waits[19] >= limit / 2);
            backoff.reset();
            prop_assert!(backoff.delay() <= first);
        }
    }

    #[test]
    fn two_seeds_do_not_wait_in_step() {
        let mut waits =
            [1, 2].map(|seed| Backoff::new(Duration::from_secs(1), Duration::from_secs(1), seed));
        assert_ne!(waits[0].delay(), waits[1].delay());
    }
}
