//! Who owns which block: the pool's single-threaded core. Every operation is O(1) per block.
//!
//! A block is *active* while it has owners, *cached* when it has none but can be found by its name,
//! else *free*. Credits are promises against free and cached blocks: `reserved <= free + cached`
//! holds always, so a credit can be bound at any time.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::events::{BlockEvent, CommittedBlock, EventLog};
use super::list::{Links, List};
use super::{BlockCounts, Corrupt, SealOutcome};
use crate::{BlockHash, BlockId, BlockRef, BlockVersion, NoCapacity, Tier, TokenId};

/// All that a pool knows.
pub(super) struct PoolState {
    slots: Box<[Slot]>,
    /// `[blocks, block_tokens]`: the tokens of published blocks.
    tokens: Box<[TokenId]>,
    block_tokens: usize,
    links: Links,
    free: List,
    /// Least recently used first.
    cached: List,
    reserved: u32,
    published: HashMap<BlockHash, BlockId, BuildHasherDefault<AlreadyHashed>>,
    caching: bool,
    events: EventLog,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    version: u32,
    owners: u32,
    /// Present while [`PoolState::published`] leads here.
    published: Option<CommittedBlock>,
}

/// Passes the low half of a [`BlockHash`] on: it is uniform already.
#[derive(Default)]
struct AlreadyHashed(u64);

// === impl PoolState ===

impl PoolState {
    pub(super) fn new(blocks: u32, block_tokens: u32, caching: bool) -> Self {
        let mut links = Links::new(blocks);
        let mut free = List::new();
        for block in 0..blocks {
            free.push_back(&mut links, BlockId(block));
        }
        let findable = if caching { blocks as usize } else { 0 };
        Self {
            slots: vec![Slot::default(); blocks as usize].into(),
            tokens: vec![0; blocks as usize * block_tokens as usize].into(),
            block_tokens: block_tokens as usize,
            links,
            free,
            cached: List::new(),
            reserved: 0,
            published: HashMap::with_capacity_and_hasher(findable, BuildHasherDefault::default()),
            caching,
            events: EventLog::default(),
        }
    }

    pub(super) fn counts(&self) -> BlockCounts {
        let (free, cached) = (self.free.len(), self.cached.len());
        let active = self.slots.len() as u32 - free - cached;
        BlockCounts { free, reserved: self.reserved, active, cached }
    }

    pub(super) fn reserve(&mut self, blocks: u32) -> Result<(), NoCapacity> {
        let free_blocks = self.counts().available();
        if blocks > free_blocks {
            return Err(NoCapacity { need_blocks: blocks, free_blocks });
        }
        self.reserved += blocks;
        Ok(())
    }

    pub(super) fn unreserve(&mut self, blocks: u32) {
        self.reserved -= blocks;
    }

    /// Turns one credit into a block with one owner.
    pub(super) fn bind(&mut self) -> BlockRef {
        if self.free.len() == 0 {
            self.evict_oldest();
        }
        let block = self.free.pop_front(&mut self.links).expect("a credit stands for a block");
        self.reserved -= 1;
        self.slots[block.index()].owners = 1;
        self.reference(block)
    }

    pub(super) fn share(&mut self, block: BlockId) {
        self.slots[block.index()].owners += 1;
    }

    pub(super) fn release(&mut self, block: BlockId) {
        let slot = &mut self.slots[block.index()];
        slot.owners -= 1;
        match (slot.owners, slot.published) {
            (0, Some(_)) => self.cached.push_back(&mut self.links, block),
            (0, None) => self.retire(block),
            _ => {}
        }
    }

    pub(super) fn owners(&self, block: BlockId) -> u32 {
        self.slots[block.index()].owners
    }

    pub(super) fn is_published(&self, block: BlockId) -> bool {
        self.slots[block.index()].published.is_some()
    }

    pub(super) fn is_current(&self, reference: BlockRef) -> bool {
        self.slots.get(reference.block.index()).is_some_and(|slot| {
            slot.version == reference.version.0 && (slot.owners > 0 || slot.published.is_some())
        })
    }

    pub(super) fn seal(
        &mut self,
        block: BlockId,
        committed: CommittedBlock,
        tokens: &[TokenId],
    ) -> SealOutcome {
        assert_eq!(tokens.len(), self.block_tokens, "only a full block has a name");
        if !self.caching {
            return SealOutcome::CachingOff;
        }
        if self.is_published(block) {
            assert!(self.holds(block, committed, tokens), "{block} is sealed again as another");
            return SealOutcome::Duplicate(block);
        }
        if let Some(&holder) = self.published.get(&committed.hash) {
            let same = self.holds(holder, committed, tokens);
            return if same {
                SealOutcome::Duplicate(holder)
            } else {
                SealOutcome::Collision(holder)
            };
        }
        self.tokens_mut(block).copy_from_slice(tokens);
        self.slots[block.index()].published = Some(committed);
        self.published.insert(committed.hash, block);
        self.events.push(BlockEvent::Committed { block: committed, tier: Tier::Device });
        SealOutcome::Published
    }

    /// Takes an owned block's name back; says whether it had one.
    pub(super) fn unseal(&mut self, block: BlockId) -> bool {
        let was_published = self.is_published(block);
        self.unpublish(block);
        was_published
    }

    /// The longest findable run of `hashes`, one new owner each; ends early where the cached blocks
    /// left are all promised to credits.
    pub(super) fn match_prefix(
        &mut self,
        hashes: &[BlockHash],
        tokens: &[TokenId],
    ) -> Vec<BlockRef> {
        let mut parent = None;
        let mut found = Vec::new();
        for (&hash, tokens) in hashes.iter().zip(tokens.chunks_exact(self.block_tokens)) {
            let Some(&block) = self.published.get(&hash) else { break };
            let wanted = CommittedBlock { hash, parent, depth: found.len() as u32 };
            let same = self.holds(block, wanted, tokens);
            if !same || !self.pin(block) {
                break;
            }
            found.push(self.reference(block));
            parent = Some(hash);
        }
        found
    }

    pub(super) fn set_caching(&mut self, caching: bool) {
        self.caching = caching;
        if caching {
            return;
        }
        while self.cached.len() > 0 {
            self.evict_oldest();
        }
        for index in 0..self.slots.len() {
            self.unpublish(BlockId(index as u32));
        }
    }

    pub(super) fn active_blocks(&self) -> impl Iterator<Item = BlockRef> + '_ {
        let owned = self.slots.iter().enumerate().filter(|(_, slot)| slot.owners > 0);
        owned.map(|(index, _)| self.reference(BlockId(index as u32)))
    }

    pub(super) fn published_blocks(&self) -> Vec<CommittedBlock> {
        self.slots.iter().filter_map(|slot| slot.published).collect()
    }

    pub(super) fn events(&mut self) -> &mut EventLog {
        &mut self.events
    }

    /// Compares every list, count and name with what the slots say.
    pub(super) fn audit(&self) -> Result<(), Corrupt> {
        for (list, cached) in [(&self.free, false), (&self.cached, true)] {
            let mut count = 0;
            for block in list.iter(&self.links).take(self.slots.len() + 1) {
                count += 1;
                if self.owners(block) > 0 || self.is_published(block) != cached {
                    return Err(Corrupt::Misfiled(block));
                }
            }
            if count != list.len() {
                return Err(Corrupt::Count);
            }
        }
        let counts = self.counts();
        if self.active_blocks().count() != counts.active as usize
            || counts.reserved > counts.free + counts.cached
        {
            return Err(Corrupt::Count);
        }
        self.audit_names()
    }

    fn audit_names(&self) -> Result<(), Corrupt> {
        let names = self.published_blocks();
        if names.len() != self.published.len() {
            return Err(Corrupt::Names);
        }
        let leads_home = |(hash, block): (&BlockHash, &BlockId)| {
            self.slots[block.index()].published.is_some_and(|own| own.hash == *hash)
        };
        if self.published.iter().all(leads_home) { Ok(()) } else { Err(Corrupt::Names) }
    }

    fn reference(&self, block: BlockId) -> BlockRef {
        BlockRef { block, version: BlockVersion(self.slots[block.index()].version) }
    }

    /// Adds an owner to a published block, unless that would break a promise.
    fn pin(&mut self, block: BlockId) -> bool {
        if self.owners(block) == 0 {
            if self.counts().available() == 0 {
                return false;
            }
            self.cached.remove(&mut self.links, block);
        }
        self.share(block);
        true
    }

    /// Whether a published block is what its name says: a hash is no proof.
    fn holds(&self, block: BlockId, want: CommittedBlock, tokens: &[TokenId]) -> bool {
        let start = block.index() * self.block_tokens;
        self.slots[block.index()].published == Some(want)
            && self.tokens[start..start + self.block_tokens] == *tokens
    }

    fn tokens_mut(&mut self, block: BlockId) -> &mut [TokenId] {
        let start = block.index() * self.block_tokens;
        &mut self.tokens[start..start + self.block_tokens]
    }

    /// Frees the cached block that was released longest ago.
    fn evict_oldest(&mut self) {
        let oldest = self.cached.pop_front(&mut self.links).expect("a credit stands for a block");
        self.unpublish(oldest);
        self.retire(oldest);
    }

    fn unpublish(&mut self, block: BlockId) {
        if let Some(CommittedBlock { hash, .. }) = self.slots[block.index()].published.take() {
            self.published.remove(&hash);
            self.events.push(BlockEvent::Evicted { hash, tier: Tier::Device });
        }
    }

    /// Ends a turn: from here on every reference to it is stale.
    fn retire(&mut self, block: BlockId) {
        let slot = &mut self.slots[block.index()];
        slot.version = slot.version.wrapping_add(1);
        self.free.push_front(&mut self.links, block);
    }
}

// === impl AlreadyHashed ===

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a block hash is one u128");
    }
}
