//! What a router knows of workers' caches, as they tell it.

use kv_cache::{BlockEvents, BlockHash, BlockPool, Hits, Holder, PrefixIndex, Tier};

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
        Self { holders: holders.collect(), index, hits: Hits::default() }
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

    /// Leading blocks of a prompt that each worker has.
    pub(super) fn find(&mut self, names: &[BlockHash]) -> Vec<u32> {
        let Self { index, holders, hits } = self;
        index.find(names, hits);
        let of = |holder: &Holder| {
            let hit = hits.as_slice().iter().find(|hit| hit.holder == *holder);
            hit.map_or(0, |hit| hit.within(Tier::Device))
        };
        holders.iter().map(of).collect()
    }

    /// Blocks that a worker has.
    pub(super) fn blocks_of(&self, worker: usize) -> u64 {
        self.index.blocks_of(self.holders[worker])
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
