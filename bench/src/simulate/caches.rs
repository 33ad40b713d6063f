//! What a router knows of workers' caches, as they tell it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::{BlockEvents, BlockHash, BlockPool, Expected, Hits, Holder, PrefixIndex, Tier};
use scheduler::ClusterSnapshot;
use scheduler::placement::CachedTokens;

/// What a router's index may take.
const BYTES_MAX: usize = 1 << 30;

/// Events of a report at most: as many as a pool keeps.
const EVENTS_MAX: usize = 16_384;

/// A router's view of all caches.
pub(super) struct Caches {
    index: PrefixIndex,
    /// By worker.
    holders: Vec<Holder>,
    hits: Hits,
    /// What was sent to workers, and will be cached there before they can tell.
    expected: Expected,
}

/// What a worker tells of its cache.
#[derive(Clone, Debug)]
pub(super) enum CacheNews {
    /// What changed since the last report.
    Changes(BlockEvents),
    /// All that it has.
    Snapshot(Vec<BlockHash>),
}

// === impl Caches ===

impl Caches {
    pub(super) fn new(workers: usize) -> Self {
        let mut index = PrefixIndex::new(BYTES_MAX);
        let holders = (0..workers).map(|_| index.join().expect("an index takes thousands"));
        Self {
            holders: holders.collect(),
            index,
            hits: Hits::default(),
            expected: Expected::default(),
        }
    }

    /// Takes in what a worker told. What the index has no bytes for isn't known.
    pub(super) fn hear(&mut self, worker: usize, news: &CacheNews) {
        let Self { index, holders, .. } = self;
        let holder = holders[worker];
        match news {
            CacheNews::Changes(changes) => {
                let _ = index.apply(holder, &changes.events);
            }
            CacheNews::Snapshot(blocks) => {
                index.clear(holder);
                for block in blocks {
                    let _ = index.insert(holder, *block, Tier::Device);
                }
            }
        }
    }

    /// Says of every worker in `view` what it is likely to have of a prompt, as a router does.
    pub(super) fn apply(
        &mut self,
        names: &[BlockHash],
        block_tokens: u32,
        view: &mut ClusterSnapshot,
        now: Instant,
    ) {
        let Self { index, holders, hits, expected } = self;
        index.find(names, hits);
        let expected = expected.find(names, now);
        let tokens = |blocks: u32| blocks.saturating_mul(block_tokens);
        for (worker, holder) in view.workers.iter_mut().zip(holders) {
            let hit = hits.as_slice().iter().find(|hit| hit.holder == *holder);
            let [device, host, disk] =
                Tier::ALL.map(|tier| tokens(hit.map_or(0, |hit| hit.within(tier))));
            worker.cached = CachedTokens { device, host, disk };
            worker.cached.raise(tokens(expected.get(holder).copied().unwrap_or_default()));
        }
    }

    /// Notes that a prompt goes to a worker, which will have its blocks for some time after.
    pub(super) fn expect(
        &mut self,
        worker: usize,
        names: &Arc<[BlockHash]>,
        now: Instant,
        lasts: Duration,
    ) {
        self.expected.add(self.holders[worker], Arc::clone(names), now, lasts);
    }
}

// === impl CacheNews ===

impl CacheNews {
    /// What a pool has to tell; all of it the first time, and where it had too much to remember.
    pub(super) fn of(pool: &BlockPool) -> Self {
        let changes = pool.drain_events(EVENTS_MAX);
        if !changes.needs_snapshot {
            return Self::Changes(changes);
        }
        Self::Snapshot(pool.snapshot().blocks.iter().map(|(block, _)| block.hash).collect())
    }
}
