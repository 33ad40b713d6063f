//! The blocks of one worker: who owns each, which are free, which can be found by their name.

mod events;
mod handle;
mod hot;
mod list;
mod order;
mod state;
mod tiers;

use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

pub use events::{BlockEvent, BlockEvents, CommittedBlock, Snapshot};
pub use handle::BlockHandle;
pub use tiers::{Evictions, Unsaved};

use self::events::SharedLog;
use self::state::PoolState;
use crate::{BlockHash, BlockId, BlockRef, NoCapacity, Reservation, Tier, TokenId};

/// The blocks of one worker's KV cache.
///
/// A clone is another handle to the same pool. Safe from any thread: each call takes one short lock
/// (tens of nanoseconds) and never waits for anything else.
///
/// Blocks are promised first ([`BlockPool::reserve`]), bound when they are needed and given back by
/// dropping: the pool has no call to free anything, so nothing can be freed twice or forgotten.
#[derive(Clone)]
pub struct BlockPool(Arc<LockedPool>);

/// Where a pool's blocks are. `free + active + cached` is the whole pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockCounts {
    /// Blocks with no owner and no name.
    pub free: u32,
    /// Credits not yet bound: promises against `free + cached`.
    pub reserved: u32,
    /// Blocks with at least one owner.
    pub active: u32,
    /// Blocks with no owner that can still be found; evicted when a credit needs one.
    pub cached: u32,
}

/// What [`BlockHandle::seal`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealOutcome {
    /// The block can now be found.
    Published,
    /// This or another block with the same contents is found under that name already.
    Duplicate(BlockId),
    /// Another block with *other* contents has that name; this one stays private.
    Collision(BlockId),
    /// The pool keeps no cache.
    CachingOff,
}

/// A pool that contradicts itself: a bug in this crate.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Corrupt {
    /// A block is in a list where it doesn't belong.
    #[error("{0} is in the wrong list")]
    Misfiled(BlockId),
    /// A count doesn't add up.
    #[error("block counts don't add up")]
    Count,
    /// The index of names and the blocks disagree.
    #[error("the index of block names is wrong")]
    Names,
}

struct LockedPool {
    state: Mutex<PoolState>,
    total_blocks: u32,
    block_tokens: u32,
}

// === impl BlockPool ===

impl BlockPool {
    /// A pool of `blocks` free blocks of `block_tokens` token slots, with the prefix cache on.
    ///
    /// # Panics
    /// If `block_tokens` is 0, or `blocks` is [`u32::MAX`].
    #[must_use]
    pub fn new(blocks: u32, block_tokens: u32) -> Self {
        assert!(block_tokens > 0, "a block has at least one token slot");
        assert!(blocks < u32::MAX, "the largest index is taken");
        Self::of_tier(Tier::Device, blocks, block_tokens, SharedLog::default())
    }

    /// The same pool with its prefix cache on or off, as [`BlockPool::set_caching`].
    #[must_use]
    pub fn with_prefix_cache(self, caching: bool) -> Self {
        self.set_caching(caching);
        self
    }

    /// Blocks in all.
    #[must_use]
    pub fn total_blocks(&self) -> u32 {
        self.0.total_blocks
    }

    /// Token slots of a block.
    #[must_use]
    pub fn block_tokens(&self) -> u32 {
        self.0.block_tokens
    }

    /// Where the blocks are at this moment.
    #[must_use]
    pub fn counts(&self) -> BlockCounts {
        self.lock().counts()
    }

    /// Promises `blocks` blocks, all or none. Nothing is evicted before a credit is bound.
    ///
    /// # Errors
    /// [`NoCapacity`] if fewer are free or evictable and not yet promised.
    pub fn reserve(&self, blocks: u32) -> Result<Reservation, NoCapacity> {
        self.lock().reserve(blocks)?;
        Ok(Reservation::adopt(self.clone(), blocks))
    }

    /// The longest run of full blocks, from the first, that this pool holds: pinned, in order.
    ///
    /// Tokens are compared too, so a hash collision is a miss and never another prompt's answer.
    /// Cached blocks that are found stop being evictable; where all evictable blocks are promised,
    /// the run ends. Match first and reserve the rest; keep the run in a [`crate::BlockTable`], which
    /// releases it in the order that is best for the cache.
    ///
    /// - `hashes`: the names of the sequence's full blocks, from its start.
    /// - `tokens`: the sequence's, from its start; at least as long as the run that is hoped for.
    #[must_use]
    pub fn match_prefix(&self, hashes: &[BlockHash], tokens: &[TokenId]) -> Vec<BlockHandle> {
        self.match_run(0, hashes, tokens)
    }

    /// Blocks with an owner that none of `live` names, in order: each is a leak, or on its way from one owner to
    /// the next.
    pub fn ownerless(&self, live: impl IntoIterator<Item = BlockId>) -> Vec<BlockRef> {
        let mut known = vec![false; self.total_blocks() as usize];
        for block in live {
            known[block.index()] = true;
        }
        self.lock().active_blocks().filter(|held| !known[held.block.index()]).collect()
    }

    /// How many they are: a leak unless 0, where nothing moves.
    pub fn orphans(&self, live: impl IntoIterator<Item = BlockId>) -> u32 {
        self.ownerless(live).len() as u32
    }

    /// Whether the block still holds what it held when the reference was taken.
    #[must_use]
    pub fn is_current(&self, reference: BlockRef) -> bool {
        self.lock().is_current(reference)
    }

    /// Turns the prefix cache on or off. Off, nothing is found, released blocks are free at once,
    /// and what was cached is freed now.
    pub fn set_caching(&self, caching: bool) {
        self.lock().set_caching(caching);
    }

    /// Takes up to `max` of the events since the last call, oldest first.
    ///
    /// There are none before the first [`BlockPool::snapshot`], nor once nobody took them for too long: then
    /// [`BlockEvents::needs_snapshot`] is set until there is another.
    #[must_use]
    pub fn drain_events(&self, max: usize) -> BlockEvents {
        self.lock().events().lock().drain(max)
    }

    /// Every block that can be found now, here and in the tiers below, and the events that nobody has taken yet; from here on
    /// events are kept, which build on this.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let tiers = self.with_tiers();
        // All of them, from the top, as whoever needs two: nothing changes anywhere meanwhile.
        let states: Vec<_> = tiers.iter().map(Self::lock).collect();
        let before = states[0].events().lock().begin();
        let of_tier = |state: &MutexGuard<'_, PoolState>| {
            let tier = state.tier();
            state.published_blocks().into_iter().map(move |block| (block, tier))
        };
        Snapshot { before, blocks: states.iter().flat_map(of_tier).collect() }
    }

    /// Checks the pool against itself, in time linear in its blocks: for tests and idle moments.
    ///
    /// # Errors
    /// [`Corrupt`] names the first contradiction.
    pub fn audit(&self) -> Result<(), Corrupt> {
        self.lock().audit()
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.0.state.lock()
    }

    /// Takes `more` credits for an existing reservation.
    pub(crate) fn add_credits(&self, more: u32) -> Result<(), NoCapacity> {
        self.lock().reserve(more)
    }

    /// Gives unbound credits back.
    pub(crate) fn return_credits(&self, credits: u32) {
        self.lock().unreserve(credits);
    }

    /// Spends one credit, which the caller holds.
    pub(crate) fn bind_credit(&self) -> BlockHandle {
        let reference = self.lock().bind();
        BlockHandle::adopt(self.clone(), reference)
    }

    pub(crate) fn bind_credits(&self, blocks: u32) -> Vec<BlockHandle> {
        let mut state = self.lock();
        let mut bound: Vec<_> = (0..blocks).map(|_| state.bind()).collect();
        drop(state);
        bound.sort_unstable_by_key(|reference| reference.block);
        bound.into_iter().map(|reference| BlockHandle::adopt(self.clone(), reference)).collect()
    }
}

impl fmt::Debug for BlockPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockPool")
            .field("total_blocks", &self.total_blocks())
            .field("block_tokens", &self.block_tokens())
            .field("counts", &self.counts())
            .finish()
    }
}

// === impl BlockCounts ===

impl BlockCounts {
    /// Blocks that can still be promised.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.free + self.cached - self.reserved
    }

    /// Blocks in all.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.free + self.active + self.cached
    }
}

#[cfg(test)]
mod tests;
