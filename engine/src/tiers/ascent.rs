//! How blocks come up: for a prompt that waits for them, verified, and then cached like any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;

use kv_cache::{BlockHandle, BlockHash, BlockPool, BlockTable, CommittedBlock, KvRegion, TokenId};
use rayon::prelude::*;

use super::memory::TierFault;
use super::{Stored, Tier, log_count};
use crate::clock;
use crate::handle::LiveBlocks;

/// Blocks on their way up for one prompt.
///
/// It owns the blocks that it fills: whoever waits may leave, and they are given back when the copy is over. Dropped, it says so to
/// who waits, whatever became of it.
pub(crate) struct Ascent {
    /// What the device has of the prompt, and behind it the blocks to be filled.
    table: BlockTable,
    /// The first of these.
    first: usize,
    /// Where each of them is.
    stored: Vec<Stored>,
    /// Names of the prompt's blocks.
    hashes: Vec<BlockHash>,
    /// Of the blocks to be filled.
    tokens: Vec<TokenId>,
    done: Arc<AtomicBool>,
    number: u64,
    live: Arc<LiveBlocks<u64>>,
}

/// What somebody waits for; who doesn't any more drops it.
#[derive(Debug)]
pub(crate) struct Rise {
    done: Arc<AtomicBool>,
    /// How many blocks.
    pub(crate) blocks: u32,
}

/// The number of the next one.
static NEXT: AtomicU64 = AtomicU64::new(0);

// === impl Rise ===

impl Rise {
    /// Whether nothing more comes up.
    pub(crate) fn is_over(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

// === impl Ascent ===

impl Ascent {
    /// Binds blocks for `stored`, the blocks of a sequence behind those in `table`. `None` if the pool has no room.
    ///
    /// - `hashes`: names of the sequence's blocks, at least as many as there are in all.
    /// - `context`: the sequence's tokens.
    pub(crate) fn new(
        pool: &BlockPool,
        live: &Arc<LiveBlocks<u64>>,
        (mut table, stored): (BlockTable, Vec<Stored>),
        hashes: &[BlockHash],
        context: &[TokenId],
    ) -> Option<Self> {
        let first = table.blocks().len();
        let mut credit = pool.reserve(stored.len() as u32).ok()?;
        credit.bind_many(stored.len() as u32)?.into_iter().for_each(|block| table.push(block));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        live.set(number, &table);
        let blocks = first..first + stored.len();
        let block_tokens = pool.block_tokens() as usize;
        Some(Self {
            table,
            first,
            stored,
            hashes: hashes[..blocks.end].to_vec(),
            tokens: context[blocks.start * block_tokens..blocks.end * block_tokens].to_vec(),
            done: Arc::default(),
            number,
            live: Arc::clone(live),
        })
    }

    pub(crate) fn rise(&self) -> Rise {
        Rise { done: Arc::clone(&self.done), blocks: self.stored.len() as u32 }
    }

    /// Index of the slowest tier that it reads.
    pub(super) fn slowest_tier(&self) -> usize {
        self.stored.iter().map(|stored| stored.tier).max().unwrap_or(0)
    }

    fn is_wanted(&self) -> bool {
        Arc::strong_count(&self.done) > 1
    }

    /// Brings the blocks up, a group at a time, as long as somebody waits for them and they are what they should be.
    fn run(&self, tiers: &[Arc<Tier>], region: &dyn KvRegion, stopping: &AtomicBool) {
        let mut at = 0;
        while at < self.stored.len() && self.is_wanted() && !stopping.load(Ordering::Acquire) {
            let tier = self.stored[at].tier;
            let alike = self.stored[at..].iter().take_while(|stored| stored.tier == tier).count();
            let blocks = alike.min(tiers[tier].rises);
            if self.bring(at, blocks, &tiers[tier], region) < blocks {
                return;
            }
            at += blocks;
        }
    }

    /// Brings up `blocks` blocks from the `at`-th on, all of one tier. Returns how many came.
    fn bring(&self, at: usize, blocks: usize, tier: &Tier, region: &dyn KvRegion) -> usize {
        let began = clock::now();
        let stored = &self.stored[at..at + blocks];
        // Side by side, so that a disk has more than one to look for.
        let read: Vec<_> =
            stored.par_iter().map(|stored| tier.memory.read(stored.block.id())).collect();
        let read = read.into_iter().zip(stored);
        let read: Vec<_> = read.map_while(|(read, stored)| whole(tier, stored, read)).collect();
        if read.is_empty() || !self.put(at, &read, region) {
            return 0;
        }
        self.publish(at, read.len());
        tier.stats.rose(read.len(), clock::now() - began);
        read.len()
    }

    /// Copies what was read into the device's blocks.
    fn put(&self, at: usize, read: &[Arc<Vec<u8>>], region: &dyn KvRegion) -> bool {
        let blocks = &self.table.blocks()[self.first + at..][..read.len()];
        let blocks: Vec<_> = blocks.iter().map(BlockHandle::reference).collect();
        let bytes: Vec<&[u8]> = read.iter().map(|block| &block[..]).collect();
        let put = region.restore(&blocks, &bytes);
        put.inspect_err(|error| tracing::warn!(%error, "KV blocks can't be copied to the device"))
            .is_ok()
    }

    /// Lets blocks be found.
    fn publish(&self, at: usize, blocks: usize) {
        let block_tokens = self.tokens.len() / self.stored.len();
        for at in at..at + blocks {
            let depth = self.first + at;
            let parent = depth.checked_sub(1).map(|before| self.hashes[before]);
            let name = CommittedBlock { hash: self.hashes[depth], parent, depth: depth as u32 };
            // Somebody may have computed it meanwhile: then this one is released like any other.
            let tokens = &self.tokens[at * block_tokens..][..block_tokens];
            let _ = self.table.blocks()[depth].seal(name, tokens);
        }
    }
}

/// A block as it was written; `None`, and the tier forgets it, if it isn't.
fn whole(
    tier: &Tier,
    stored: &Stored,
    read: Result<Arc<Vec<u8>>, TierFault>,
) -> Option<Arc<Vec<u8>>> {
    let told = read.inspect_err(|fault| {
        stored.block.unseal();
        let name = tier.pool.tier().name();
        log_count(tier.stats.corrupt(), |count| {
            tracing::warn!(%fault, tier = name, count, "a KV block is lost, and computed again");
        });
    });
    told.ok()
}

impl Drop for Ascent {
    /// First the blocks, then the entry: an audit in between sees no orphan.
    fn drop(&mut self) {
        self.table.truncate(0);
        self.live.remove(self.number);
        self.done.store(true, Ordering::Release);
    }
}

/// Brings up whatever is asked for, one after the other.
pub(super) fn run(
    ascents: &Receiver<Ascent>,
    tiers: &[Arc<Tier>],
    region: &dyn KvRegion,
    stopping: &AtomicBool,
) {
    while let Ok(ascent) = ascents.recv() {
        ascent.run(tiers, region, stopping);
    }
}
