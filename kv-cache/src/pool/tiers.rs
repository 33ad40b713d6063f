//! Pools below a pool: slower memory that keeps what the faster has no room for.
//!
//! A tier is a pool of its own, over other memory: its blocks are reserved, bound, sealed, matched and evicted like any.
//! What is here is how blocks go from one to the next. They go *ahead* of their eviction: the oldest cached blocks are
//! copied while nobody needs their place, and are evicted at no cost when somebody does.
//!
//! Whoever copies takes no hold of the block: it stays where it is in the order of eviction, and may be gone in the middle of the
//! copy. Its version tells afterwards, under the pool's lock, and such a copy is thrown away.

use std::sync::Arc;

use parking_lot::Mutex;

use super::events::{CommittedBlock, SharedLog};
use super::state::PoolState;
use super::{BlockHandle, BlockPool, LockedPool};
use crate::{BlockHash, BlockId, BlockRef, Tier, TokenId};

/// Of a pool's blocks one in so many is to be free, or saved in the tier below: what can be bound at a stroke at no loss.
///
/// More would keep blocks twice that are found above anyway. Less than the longest prompts take would lose what they displace, as
/// they bind blocks as fast as the copies follow.
const SAVED_SHARE: u32 = 2;

/// A cached block that has no copy in the tier below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsaved {
    /// Where it is, and whose turn.
    pub at: BlockRef,
    /// Its name.
    pub block: CommittedBlock,
    /// Its tokens, `[block_tokens]`.
    pub tokens: Box<[TokenId]>,
}

/// How many blocks have been evicted, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evictions {
    /// All of them.
    pub all: u64,
    /// Those that should have gone down before, and hadn't.
    pub lost: u64,
}

// === impl BlockPool ===

impl BlockPool {
    pub(super) fn of_tier(tier: Tier, blocks: u32, block_tokens: u32, events: SharedLog) -> Self {
        let state = Mutex::new(PoolState::new(tier, blocks, block_tokens, events));
        Self(Arc::new(LockedPool { state, total_blocks: blocks, block_tokens }))
    }

    /// Puts a tier of `blocks` blocks below this pool and returns it. What happens there is among this pool's events.
    ///
    /// # Panics
    /// If there is one already.
    #[must_use]
    pub fn add_tier(&self, tier: Tier, blocks: u32) -> Self {
        let mut state = self.lock();
        assert!(state.below().is_none(), "a pool has one tier below");
        let below = Self::of_tier(tier, blocks, self.block_tokens(), Arc::clone(state.events()));
        state.set_below(below.clone());
        below
    }

    /// The kind of memory that its blocks are in.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.lock().tier()
    }

    /// Up to `max` of the blocks that are evicted next and have no copy below yet, oldest first; none where enough blocks can be
    /// bound at no loss.
    ///
    /// Copy each into a block of the tier below and hand it to [`BlockPool::save`]. Until then the next call gives the same.
    #[must_use]
    pub fn unsaved(&self, max: usize) -> Vec<Unsaved> {
        let wanted = self.total_blocks() / SAVED_SHARE;
        self.lock().unsaved(wanted, max)
    }

    /// Whether what was read of `unsaved` until now is its own: nobody else has got the block, and its name is the same.
    #[must_use]
    pub fn has(&self, unsaved: &Unsaved) -> bool {
        self.lock().has(unsaved)
    }

    /// Publishes `copy`, a block of the tier below, as a copy of `unsaved`. `false`, and it isn't, if the block was given to
    /// somebody else while it was copied, or its name was taken back, or another copy is there.
    #[must_use]
    pub fn save(&self, unsaved: &Unsaved, copy: &BlockHandle) -> bool {
        self.lock().publish_below(unsaved, copy.id())
    }

    /// As [`BlockPool::match_prefix`], for blocks from the `first` on: those before it are elsewhere.
    #[must_use]
    pub fn match_run(
        &self,
        first: usize,
        hashes: &[BlockHash],
        tokens: &[TokenId],
    ) -> Vec<BlockHandle> {
        let found = self.lock().match_run(first, hashes, tokens);
        found.into_iter().map(|block| BlockHandle::adopt(self.clone(), block)).collect()
    }

    /// Blocks that nobody can find: free ones, and those that somebody fills.
    #[must_use]
    pub fn unnamed(&self) -> Vec<BlockId> {
        self.lock().unnamed_blocks()
    }

    /// How many blocks have been evicted.
    #[must_use]
    pub fn evictions(&self) -> Evictions {
        self.lock().evictions()
    }

    /// This pool and those below it, from the top.
    pub(super) fn with_tiers(&self) -> Vec<Self> {
        let below = |pool: &Self| pool.lock().below().cloned();
        std::iter::successors(Some(self.clone()), below).collect()
    }
}
