//! What tiers have done, and how fast they are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kv_cache::{BlockPool, Evictions, Tier};
use parking_lot::Mutex;

/// How much of the average rate one new measurement makes.
const NEWEST_SHARE: f64 = 0.2;

/// What is less says more of threads that wake than of how fast memory is.
const MEASURED_BYTES: u64 = 1 << 20;

/// A tier that was measured to be slower than computing is tried again at every so many lookups: it may have been busy only
/// then, and who never looks again never learns.
const TRY_AGAIN: u32 = 32;

/// What a tier has done since the start, and has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierCounts {
    /// Which.
    pub tier: Tier,
    /// Bytes that it may keep.
    pub capacity_bytes: u64,
    /// Bytes that it keeps.
    pub used_bytes: u64,
    /// Blocks brought up for prompts.
    pub hit_blocks: u64,
    /// Bytes brought up.
    pub bytes_up: u64,
    /// Bytes that came down to it.
    pub bytes_down: u64,
    /// Blocks that it has evicted, and of them those that were to go further down and were not in time.
    pub evictions: Evictions,
    /// Blocks that were found damaged, or not found, when they were read.
    pub corrupt_blocks: u64,
    /// Blocks that couldn't be written.
    pub failed_writes: u64,
}

/// The counters behind [`TierCounts`].
#[derive(Debug)]
pub(super) struct TierStats {
    block_bytes: u64,
    hit_blocks: AtomicU64,
    sunk_blocks: AtomicU64,
    corrupt_blocks: AtomicU64,
    failed_writes: AtomicU64,
    pace: Mutex<Pace>,
}

/// How long a block takes to come up.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Seconds; 0 until measured.
    block_s: f64,
    /// Lookups that were refused since the last one that wasn't.
    refused: u32,
}

// === impl TierCounts ===

impl TierCounts {
    /// Of a pool that keeps blocks of so many bytes.
    pub(crate) fn of_pool(pool: &BlockPool, block_bytes: u64) -> Self {
        let counts = pool.counts();
        Self {
            tier: pool.tier(),
            capacity_bytes: u64::from(pool.total_blocks()) * block_bytes,
            used_bytes: u64::from(counts.active + counts.cached) * block_bytes,
            hit_blocks: 0,
            bytes_up: 0,
            bytes_down: 0,
            evictions: pool.evictions(),
            corrupt_blocks: 0,
            failed_writes: 0,
        }
    }
}

// === impl TierStats ===

impl TierStats {
    pub(super) fn new(block_bytes: usize) -> Self {
        Self {
            block_bytes: block_bytes as u64,
            hit_blocks: AtomicU64::new(0),
            sunk_blocks: AtomicU64::new(0),
            corrupt_blocks: AtomicU64::new(0),
            failed_writes: AtomicU64::new(0),
            pace: Mutex::default(),
        }
    }

    /// Notes that blocks came up in so long.
    pub(super) fn rose(&self, blocks: usize, took: Duration) {
        self.hit_blocks.fetch_add(blocks as u64, Ordering::Relaxed);
        if blocks as u64 * self.block_bytes >= MEASURED_BYTES {
            self.pace.lock().observe(took.as_secs_f64() / blocks as f64);
        }
    }

    pub(super) fn sank(&self, blocks: usize) {
        self.sunk_blocks.fetch_add(blocks as u64, Ordering::Relaxed);
    }

    /// Notes a block that was not what it should be. Says how many they are.
    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt_blocks.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes a block that couldn't be written. Says how many they are.
    pub(super) fn failed_write(&self) -> u64 {
        self.failed_writes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a block takes longer to come up than `block_s` seconds, as far as both are known.
    pub(super) fn is_slower_than(&self, block_s: f64) -> bool {
        block_s > 0.0 && self.pace.lock().refuses(block_s)
    }

    pub(super) fn counts(&self, pool: &BlockPool) -> TierCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TierCounts {
            hit_blocks: count(&self.hit_blocks),
            bytes_up: count(&self.hit_blocks) * self.block_bytes,
            bytes_down: count(&self.sunk_blocks) * self.block_bytes,
            corrupt_blocks: count(&self.corrupt_blocks),
            failed_writes: count(&self.failed_writes),
            ..TierCounts::of_pool(pool, self.block_bytes)
        }
    }
}

// === impl Pace ===

impl Pace {
    fn observe(&mut self, block_s: f64) {
        let is_first = self.block_s == 0.0;
        self.block_s += if is_first { 1.0 } else { NEWEST_SHARE } * (block_s - self.block_s);
    }

    fn refuses(&mut self, block_s: f64) -> bool {
        let refuses = self.block_s > block_s && self.refused + 1 < TRY_AGAIN;
        self.refused = if refuses { self.refused + 1 } else { 0 };
        refuses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_tier_is_tried_again_now_and_then() {
        let mut pace = Pace::default();
        assert!(!pace.refuses(1.0), "nobody knows");
        pace.observe(2.0);
        let tried = (0..64).filter(|_| !pace.refuses(1.0)).count();
        assert_eq!(tried, 2);
        (0..20).for_each(|_| pace.observe(0.5));
        assert!(!pace.refuses(1.0), "it is fast now");
    }
}
