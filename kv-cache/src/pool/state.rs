//! Who owns which block: the pool's single-threaded core. Every operation is O(1) per block.
//!
//! A block is *active* while it has owners, *cached* when it has none but can be found by its name,
//! else *free*. Credits are promises against free and cached blocks: `reserved <= free + cached`
//! holds always, so a credit can be bound at any time.
//!
//! Cached blocks are *saved* once the tier below is known to have them, too: those go first, at no loss.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::events::{BlockEvent, CommittedBlock, SharedLog};
use super::list::{Links, List};
use super::order::Order;
use super::tiers::Unsaved;
use super::{BlockCounts, BlockPool, Corrupt, Evictions, SealOutcome};
use crate::{Anchor, BlockHash, BlockId, BlockRef, BlockVersion, NoCapacity, Tier, TokenId};

/// All that a pool knows.
pub(super) struct PoolState {
    tier: Tier,
    slots: Box<[Slot]>,
    /// `[blocks, block_tokens]`: the tokens of published blocks.
    tokens: Box<[TokenId]>,
    block_tokens: usize,
    links: Links,
    free: List,
    cached: Order,
    reserved: u32,
    published: HashMap<BlockHash, BlockId, BuildHasherDefault<AlreadyHashed>>,
    caching: bool,
    evictions: Evictions,
    /// Where blocks go down to.
    below: Option<BlockPool>,
    events: SharedLog,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    version: u32,
    owners: u32,
    /// How often it was found since it was published.
    found: u32,
    /// Present while [`PoolState::published`] leads here.
    published: Option<CommittedBlock>,
}

/// Passes the low half of a [`BlockHash`] on: it is uniform already.
#[derive(Default)]
struct AlreadyHashed(u64);

// === impl PoolState ===

impl PoolState {
    pub(super) fn new(tier: Tier, blocks: u32, block_tokens: u32, events: SharedLog) -> Self {
        let mut links = Links::new(blocks);
        let mut free = List::new();
        for block in 0..blocks {
            free.push_back(&mut links, BlockId(block));
        }
        Self {
            tier,
            slots: vec![Slot::default(); blocks as usize].into(),
            tokens: vec![0; blocks as usize * block_tokens as usize].into(),
            block_tokens: block_tokens as usize,
            links,
            free,
            cached: Order::new(blocks),
            reserved: 0,
            published: HashMap::with_capacity_and_hasher(
                blocks as usize,
                BuildHasherDefault::default(),
            ),
            caching: true,
            evictions: Evictions::default(),
            below: None,
            events,
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
            self.evict();
        }
        let block = self.free.pop_front(&mut self.links).expect("a credit stands for a block");
        self.reserved -= 1;
        self.slots[block.index()].owners = 1;
        self.cached.begin(block);
        self.reference(block)
    }

    pub(super) fn share(&mut self, block: BlockId) {
        self.slots[block.index()].owners += 1;
    }

    pub(super) fn release(&mut self, block: BlockId) {
        let slot = &mut self.slots[block.index()];
        slot.owners -= 1;
        match (slot.owners, slot.published) {
            (0, Some(_)) => self.cached.push(&mut self.links, block),
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
        let slot = &mut self.slots[block.index()];
        (slot.published, slot.found) = (Some(committed), 0);
        self.published.insert(committed.hash, block);
        self.events.lock().push(BlockEvent::Committed { block: committed, tier: self.tier });
        SealOutcome::Published
    }

    /// Takes an owned block's name back, and its copies below; says whether it had one.
    pub(super) fn unseal(&mut self, block: BlockId) -> bool {
        let name = self.slots[block.index()].published.map(|block| block.hash);
        self.unpublish(block);
        if let (Some(hash), Some(below)) = (name, &self.below) {
            below.lock().forget(hash);
        }
        name.is_some()
    }

    /// Frees what has this name, here and below, or leaves it to its owners without one.
    fn forget(&mut self, hash: BlockHash) {
        if let Some(&block) = self.published.get(&hash) {
            self.unpublish(block);
            if self.owners(block) == 0 {
                self.cached.remove(&mut self.links, block);
                self.retire(block);
            }
        }
        if let Some(below) = &self.below {
            below.lock().forget(hash);
        }
    }

    /// The longest findable run of `hashes` from the `first` on, one new owner each; ends early where the cached
    /// blocks left are all promised to credits.
    pub(super) fn match_run(
        &mut self,
        first: usize,
        hashes: &[BlockHash],
        tokens: &[TokenId],
    ) -> Vec<BlockRef> {
        let mut parent = first.checked_sub(1).map(|before| hashes[before]);
        let mut found = Vec::new();
        let blocks = hashes.iter().zip(tokens.chunks_exact(self.block_tokens)).enumerate();
        for (depth, (&hash, tokens)) in blocks.skip(first) {
            let Some(&block) = self.published.get(&hash) else { break };
            let wanted = CommittedBlock { hash, parent, depth: depth as u32 };
            let same = self.holds(block, wanted, tokens);
            if !same || !self.pin(block) {
                break;
            }
            let times = &mut self.slots[block.index()].found;
            *times = times.saturating_add(1);
            found.push(self.reference(block));
            parent = Some(hash);
        }
        self.cached.note_found(found.iter().map(|it| it.block));
        found
    }

    pub(super) fn set_caching(&mut self, caching: bool) {
        self.caching = caching;
        if caching {
            return;
        }
        while self.cached.len() > 0 {
            self.evict();
        }
        for index in 0..self.slots.len() {
            self.unpublish(BlockId(index as u32));
        }
    }

    pub(super) fn active_blocks(&self) -> impl Iterator<Item = BlockRef> + '_ {
        let owned = self.slots.iter().enumerate().filter(|(_, slot)| slot.owners > 0);
        owned.map(|(index, _)| self.reference(BlockId(index as u32)))
    }

    pub(super) fn unnamed_blocks(&self) -> Vec<BlockId> {
        let slots = self.slots.iter().zip(0..);
        slots
            .filter(|(slot, _)| slot.published.is_none())
            .map(|(_, index)| BlockId(index))
            .collect()
    }

    pub(super) fn published_blocks(&self) -> Vec<CommittedBlock> {
        self.slots.iter().filter_map(|slot| slot.published).collect()
    }

    /// Every anchor that was found since it was published, and how often.
    pub(super) fn found_anchors(&self) -> Vec<(Anchor, u32)> {
        let found = self.slots.iter().filter(|slot| slot.found > 0);
        found.filter_map(|slot| Some((Anchor::ending_with(slot.published?)?, slot.found))).collect()
    }

    pub(super) fn events(&self) -> &SharedLog {
        &self.events
    }

    pub(super) fn tier(&self) -> Tier {
        self.tier
    }

    pub(super) fn evictions(&self) -> Evictions {
        self.evictions
    }

    pub(super) fn below(&self) -> Option<&BlockPool> {
        self.below.as_ref()
    }

    pub(super) fn set_below(&mut self, below: BlockPool) {
        self.below = Some(below);
    }

    /// The blocks that will be evicted next and aren't below, oldest first, until `wanted` blocks could be bound
    /// at no loss; those that are below are saved by that.
    pub(super) fn unsaved(&mut self, wanted: u32, max: usize) -> Vec<Unsaved> {
        let Some(below) = self.below.clone() else { return Vec::new() };
        let below = below.lock();
        let mut unsaved = Vec::new();
        let mut walk = self.cached.walk();
        while unsaved.len() < max
            && self.free.len() + self.cached.saved() + (unsaved.len() as u32) < wanted
        {
            let Some(block) = self.cached.next(&self.links, &mut walk) else { break };
            let name = self.slots[block.index()].published.expect("a cached block has a name");
            if below.published.contains_key(&name.hash) {
                self.cached.set_saved(&mut self.links, block);
            } else {
                unsaved.push(self.describe(block, name));
            }
        }
        unsaved
    }

    /// Whether a block is still what it was.
    pub(super) fn has(&self, unsaved: &Unsaved) -> bool {
        self.is_current(unsaved.at)
            && self.slots[unsaved.at.block.index()].published == Some(unsaved.block)
    }

    /// Publishes `copy`, of the pool below, as what `unsaved` is, unless that is somebody else's by now.
    pub(super) fn publish_below(&self, unsaved: &Unsaved, copy: BlockId) -> bool {
        let Some(below) = self.below.as_ref().filter(|_| self.has(unsaved)) else { return false };
        below.lock().seal(copy, unsaved.block, &unsaved.tokens) == SealOutcome::Published
    }

    fn describe(&self, block: BlockId, name: CommittedBlock) -> Unsaved {
        let tokens = self.tokens_of(block).into();
        Unsaved { at: self.reference(block), block: name, tokens }
    }

    /// Compares every list, count and name with what the slots say.
    pub(super) fn audit(&self) -> Result<(), Corrupt> {
        self.audit_lists()?;
        let counts = self.counts();
        if self.active_blocks().count() != counts.active as usize
            || counts.reserved > counts.free + counts.cached
        {
            return Err(Corrupt::Count);
        }
        self.audit_names()
    }

    fn audit_lists(&self) -> Result<(), Corrupt> {
        let free = self.free.iter(&self.links).take(self.slots.len() + 1);
        let listed = free.map(|block| (block, false));
        let cached = self.cached.iter(&self.links).map(|block| (block, true));
        let (mut counted, total) = (0, self.free.len() + self.cached.len());
        for (block, cached) in listed.chain(cached) {
            counted += 1;
            if self.owners(block) > 0 || self.is_published(block) != cached {
                return Err(Corrupt::Misfiled(block));
            }
        }
        if counted != total {
            return Err(Corrupt::Count);
        }
        self.cached.misfiled(&self.links).map_or(Ok(()), |block| Err(Corrupt::Misfiled(block)))
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

    /// Adds an owner to a published block that was found, unless that would break a promise.
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
        self.slots[block.index()].published == Some(want) && self.tokens_of(block) == tokens
    }

    fn tokens_of(&self, block: BlockId) -> &[TokenId] {
        &self.tokens[block.index() * self.block_tokens..][..self.block_tokens]
    }

    fn tokens_mut(&mut self, block: BlockId) -> &mut [TokenId] {
        let start = block.index() * self.block_tokens;
        &mut self.tokens[start..start + self.block_tokens]
    }

    /// Frees the cached block that is worth least.
    fn evict(&mut self) {
        let block = self.cached.first().expect("a credit stands for a block");
        self.evictions.all += 1;
        self.evictions.lost += u64::from(self.would_be_lost(block));
        self.cached.remove(&mut self.links, block);
        self.unpublish(block);
        self.retire(block);
    }

    /// Whether a cached block should have a copy below, and has none yet.
    fn would_be_lost(&self, block: BlockId) -> bool {
        let published = self.slots[block.index()].published;
        let is_below = |below: &BlockPool| {
            let state = below.lock();
            published.is_some_and(|block| state.published.contains_key(&block.hash))
        };
        !self.cached.is_saved(block) && self.below.as_ref().is_some_and(|below| !is_below(below))
    }

    fn unpublish(&mut self, block: BlockId) {
        if let Some(CommittedBlock { hash, .. }) = self.slots[block.index()].published.take() {
            self.published.remove(&hash);
            self.events.lock().push(BlockEvent::Evicted { hash, tier: self.tier });
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
