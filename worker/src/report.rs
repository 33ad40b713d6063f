//! How busy a worker is, and whether any of its blocks has lost its owner.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use engine::EngineHandle;
use kv_cache::{BlockId, BlockRef};
use parking_lot::Mutex;
use words::Load;

use crate::{Entrance, KvHoldings};

/// Reads a worker's load from its engine and its hand-offs.
///
/// Owners change hands while it looks, so a block counts as an orphan only if it is ownerless in two
/// samples in a row: a leak stays, a block on its way from one owner to the next doesn't. The same block, in the same
/// turn: a busy worker always has some on their way.
#[derive(Clone)]
pub struct LoadProbe {
    engine: EngineHandle,
    holdings: Arc<dyn KvHoldings>,
    entrance: Entrance,
    ownerless_before: Arc<Mutex<Vec<BlockRef>>>,
    orphans: Arc<AtomicU32>,
}

// === impl LoadProbe ===

impl LoadProbe {
    /// A probe of `engine`, whose blocks outside of it are held by `holdings`.
    #[must_use]
    pub fn new(engine: EngineHandle, holdings: Arc<dyn KvHoldings>, entrance: Entrance) -> Self {
        let (ownerless_before, orphans) = (Arc::default(), Arc::default());
        Self { engine, holdings, entrance, ownerless_before, orphans }
    }

    /// The load now. The report's number is left to whoever sends it.
    #[must_use]
    pub fn load(&self) -> Load {
        let stats = self.engine.stats();
        let counts = self.engine.pool().counts();
        let entrance = self.entrance.counts();
        let total_blocks = self.engine.pool().total_blocks();
        let in_use = total_blocks.saturating_sub(counts.available());
        let queued = entrance.prefill_tokens + self.holdings.waiting_prefill_tokens();
        Load {
            sequence: 0,
            running: stats.running,
            waiting: stats.waiting + self.holdings.waiting() + entrance.waiting,
            queued_prefill_tokens: stats.backlog.total() + queued,
            context_tokens: stats.context_tokens,
            free_blocks: counts.available(),
            total_blocks,
            prefill_tokens_per_s: stats.prefill_tokens_per_s,
            decode_step_s: stats.decode_step_s,
            orphan_blocks: self.orphans.load(Ordering::Relaxed),
            promised_blocks: entrance.inside.blocks.saturating_sub(in_use),
            wanted_blocks: entrance.wanted.blocks,
            output_tokens: stats.output.mean(),
            handoffs: self.holdings.handoffs(),
            generating: entrance.inside.places,
            prefill_tokens: stats.prefill_tokens,
        }
    }

    /// Takes the next sample of [`LoadProbe::load`]; to be called at regular intervals.
    #[must_use]
    pub fn sample(&self) -> Load {
        let now = self.ownerless();
        let before = mem::replace(&mut *self.ownerless_before.lock(), now.clone());
        let is_still = |held: &&BlockRef| {
            let at = before.binary_search_by_key(&held.block, |it| it.block);
            at.is_ok_and(|at| before[at] == **held)
        };
        let still = now.iter().filter(is_still).count();
        self.orphans.store(still as u32, Ordering::Relaxed);
        self.load()
    }

    /// Blocks in use that neither a sequence nor a hand-off owns, as of this moment. A block on its
    /// way from one owner to the next may be among them.
    fn ownerless(&self) -> Vec<BlockRef> {
        let mut owned: Vec<BlockId> = self.engine.live_blocks();
        owned.extend(self.holdings.held_blocks());
        self.engine.pool().ownerless(owned)
    }
}
