//! Which workers hold which blocks: what a router knows of all caches.
//!
//! Pure and of one thread: whoever shares it locks it. Told by workers' events, bounded in bytes, and
//! built so that what it costs is a cache miss a block, of which several are under way at once:
//!
//! - a block is a tag of 64 bits and a word of 32, five in a cache line, in segments that split one by one;
//! - the word is its only holder, or names a sorted set of them;
//! - a holder that leaves gets up from its seat; what is left there is swept out in passing.
//!
//! Memory is never given back, as it is taken again soon: a cluster's caches are full.

mod budget;
mod digest;
mod expected;
mod find;
mod member;
mod seats;
mod segment;
mod sets;
mod store;
mod table;

use budget::Budget;
pub use digest::IndexDigest;
pub use expected::Expected;
pub use find::Hits;
use find::Search;
use member::{Member, Seat};
use seats::Seats;
use segment::BUCKETS;
use store::{Change, Store};
use table::Tag;

use crate::{BlockEvent, BlockHash, Tier};

/// Blocks by name, and who holds them in which tier.
///
/// ```
/// use kv_cache::{BlockHash, Hits, PrefixIndex, Tier};
///
/// let mut index = PrefixIndex::new(1 << 20);
/// let worker = index.join().expect("room");
/// let prompt = [1, 2, 3].map(|name| BlockHash(name << 64));
/// index.insert(worker, prompt[0], Tier::Device)?;
/// index.insert(worker, prompt[1], Tier::Host)?;
///
/// let mut hits = Hits::default();
/// index.find(&prompt, &mut hits);
/// let [hit] = hits.as_slice() else { panic!("one worker has it") };
/// assert_eq!((hit.within(Tier::Device), hit.within(Tier::Host)), (1, 2));
/// # Ok::<_, kv_cache::OutOfBytes>(())
/// ```
pub struct PrefixIndex {
    store: Store,
    seats: Seats,
    holders: Vec<Option<Held>>,
    /// The segment to be swept next.
    unswept: usize,
    /// Changes that have not paid for sweeping yet.
    changes: usize,
}

/// A worker's number in an index; another's after it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Holder(u16);

/// What an index has of a holder.
#[derive(Clone, Copy, Debug)]
struct Held {
    seat: Seat,
    blocks: u64,
    refused: u64,
    digest: IndexDigest,
}

/// How much of a prompt a holder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Who.
    pub holder: Holder,
    /// Leading blocks, by the slowest tier that is read for them.
    blocks: [u32; Tier::ALL.len()],
}

/// An index may not grow any more, so it doesn't know all of a holder's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the prefix index has no bytes left")]
pub struct OutOfBytes;

/// Events whose cache misses are under way at once.
const BATCH: usize = 32;

// === impl Holder ===

impl Holder {
    /// Holders of an index at most.
    pub const MAX: usize = 8192;

    /// Its number, below [`Holder::MAX`] and as small as can be: for tables.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

// === impl Hit ===

impl Hit {
    /// Leading blocks that it has in `tier` or a faster one.
    #[must_use]
    pub fn within(&self, tier: Tier) -> u32 {
        self.blocks[tier as usize]
    }
}

// === impl Held ===

impl Held {
    fn new(seat: Seat) -> Self {
        Self { seat, blocks: 0, refused: 0, digest: IndexDigest::default() }
    }

    fn came(&mut self, change: Change, hash: BlockHash, tier: Tier) {
        match change {
            Change::Nothing => return,
            Change::Tier => {}
            Change::Member => self.blocks += 1,
        }
        self.digest.add(hash, tier);
    }

    fn went(&mut self, change: Change, hash: BlockHash, tier: Tier) {
        match change {
            Change::Nothing => return,
            Change::Tier => {}
            Change::Member => self.blocks -= 1,
        }
        self.digest.remove(hash, tier);
    }
}

// === impl PrefixIndex ===

impl PrefixIndex {
    /// An empty index that never takes more than `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            store: Store::new(Budget::new(bytes_max)),
            seats: Seats::new(),
            holders: Vec::new(),
            unswept: 0,
            changes: 0,
        }
    }

    /// Gives a number to a worker; `None` if there are [`Holder::MAX`] or no bytes for one more.
    pub fn join(&mut self) -> Option<Holder> {
        let free = self.holders.iter().position(Option::is_none);
        let index = free.or_else(|| self.append_holder())?;
        let holder = Holder(index as u16);
        self.holders[index] = Some(Held::new(self.take_seat(holder)));
        Some(holder)
    }

    /// Forgets a worker and what it holds. At once: it isn't found any more, its memory is swept later.
    ///
    /// # Panics
    /// As all that names a holder: if it hasn't joined.
    pub fn leave(&mut self, holder: Holder) {
        self.seats.leave(self.held(holder).seat);
        self.holders[holder.index()] = None;
    }

    /// Forgets what a worker holds, before a snapshot says it anew. At once, as [`PrefixIndex::leave`].
    pub fn clear(&mut self, holder: Holder) {
        self.seats.leave(self.held(holder).seat);
        self.holders[holder.index()] = Some(Held::new(self.take_seat(holder)));
    }

    /// Notes that a worker has a block in a tier, also if it is known. Says whether it was not.
    ///
    /// # Errors
    /// [`OutOfBytes`]: it is not noted.
    pub fn insert(
        &mut self,
        holder: Holder,
        hash: BlockHash,
        tier: Tier,
    ) -> Result<bool, OutOfBytes> {
        self.sweep_in_passing();
        let member = Member::new(self.held(holder).seat, tier);
        let change = self.insert_member(Tag::of(hash), member);
        let held = self.held_mut(holder);
        let Some(change) = change else {
            held.refused += 1;
            return Err(OutOfBytes);
        };
        held.came(change, hash, tier);
        Ok(change != Change::Nothing)
    }

    /// Notes that a worker has a block no more in a tier. Says whether it was known to.
    pub fn remove(&mut self, holder: Holder, hash: BlockHash, tier: Tier) -> bool {
        self.sweep_in_passing();
        let change = self.store.remove(Tag::of(hash), self.held(holder).seat, tier);
        self.held_mut(holder).went(change, hash, tier);
        change != Change::Nothing
    }

    /// Notes what a worker's pool tells, in its order.
    ///
    /// # Errors
    /// [`OutOfBytes`] if a block could not be noted; all others are.
    pub fn apply(&mut self, holder: Holder, events: &[BlockEvent]) -> Result<(), OutOfBytes> {
        let mut result = Ok(());
        for batch in events.chunks(BATCH) {
            self.touch(batch);
            for event in batch {
                result = result.and(self.apply_one(holder, event));
            }
        }
        result
    }

    /// Notes the same of many blocks: that a worker has them in a tier, or no longer.
    ///
    /// # Errors
    /// As [`PrefixIndex::apply`].
    pub fn note(
        &mut self,
        holder: Holder,
        hashes: &[BlockHash],
        tier: Tier,
        is_there: bool,
    ) -> Result<(), OutOfBytes> {
        let mut result = Ok(());
        for batch in hashes.chunks(BATCH) {
            self.store.touch(batch.iter().map(|hash| Tag::of(*hash)));
            for hash in batch {
                match is_there {
                    true => result = result.and(self.insert(holder, *hash, tier).map(drop)),
                    false => drop(self.remove(holder, *hash, tier)),
                }
            }
        }
        result
    }

    /// Finds how much of a prompt each worker has that has its first block.
    ///
    /// - `hashes`: the prompt's full blocks, in order.
    ///
    /// Exact where what each has are leading blocks, in every tier together with the faster ones: a hole is not
    /// always seen. Where very many end in different places, some are said to end too early.
    pub fn find(&self, hashes: &[BlockHash], hits: &mut Hits) {
        Search { store: &self.store, hashes, hits }.run(&self.seats);
    }

    /// What a worker's blocks add up to, for comparison with its own sum.
    #[must_use]
    pub fn digest(&self, holder: Holder) -> IndexDigest {
        self.held(holder).digest
    }

    /// Blocks of a worker that there were no bytes for since it joined or was cleared.
    #[must_use]
    pub fn refused(&self, holder: Holder) -> u64 {
        self.held(holder).refused
    }

    /// Blocks that a worker has, in whichever tiers.
    #[must_use]
    pub fn blocks_of(&self, holder: Holder) -> u64 {
        self.held(holder).blocks
    }

    /// The sum of [`PrefixIndex::blocks_of`] over all workers.
    #[must_use]
    pub fn memberships(&self) -> u64 {
        self.holders.iter().flatten().map(|held| held.blocks).sum()
    }

    /// Different blocks, with those that only workers had which have left, until they are swept out.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.store.blocks()
    }

    /// Bytes taken, never more than it was made with.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// Asks for all that events are about, in loops so short that many of their misses are under way at once.
    fn touch(&self, events: &[BlockEvent]) {
        let mut tags = [Tag::default(); BATCH];
        for (tag, event) in tags.iter_mut().zip(events) {
            *tag = Tag::of(event.hash());
        }
        let tags = tags.into_iter().take(events.len());
        self.store.touch(tags.clone());
        self.store.touch_sets(tags.map(|tag| self.store.word(tag)));
    }

    fn apply_one(&mut self, holder: Holder, event: &BlockEvent) -> Result<(), OutOfBytes> {
        match *event {
            BlockEvent::Committed { block, tier } => self.insert(holder, block.hash, tier)?,
            BlockEvent::Evicted { hash, tier } => self.remove(holder, hash, tier),
        };
        Ok(())
    }

    fn insert_member(&mut self, tag: Tag, member: Member) -> Option<Change> {
        self.store.insert(tag, member, &self.seats).or_else(|| {
            // Those who left may have what is missing.
            self.seats.is_unswept().then(|| self.store.sweep_around(tag, &self.seats))?;
            self.store.insert(tag, member, &self.seats)
        })
    }

    /// Sweeps as much as is changed, a segment at a time.
    fn sweep_in_passing(&mut self) {
        self.changes += 1;
        if self.changes >= BUCKETS {
            self.changes = 0;
            self.sweep();
        }
    }

    /// Sweeps a segment, if there is anything to be swept.
    fn sweep(&mut self) {
        if !self.seats.is_unswept() {
            return;
        }
        if self.unswept == 0 {
            self.seats.begin_round();
        }
        if self.unswept < self.store.segments() {
            self.store.sweep(self.unswept, &self.seats);
            self.unswept += 1;
        }
        if self.unswept >= self.store.segments() {
            self.unswept = 0;
            self.seats.end_round();
        }
    }

    /// A free seat. Sweeps for it only if all have been left since the last round.
    fn take_seat(&mut self, holder: Holder) -> Seat {
        loop {
            match self.seats.take(holder) {
                Some(seat) => return seat,
                None => self.sweep(),
            }
        }
    }

    fn append_holder(&mut self) -> Option<usize> {
        let index = self.holders.len();
        (index < Holder::MAX).then_some(())?;
        self.store.budget().take(size_of::<Option<Held>>() + seats::BYTES)?;
        self.holders.push(None);
        Some(index)
    }

    fn held(&self, holder: Holder) -> &Held {
        self.holders[holder.index()].as_ref().expect("a holder has joined")
    }

    fn held_mut(&mut self, holder: Holder) -> &mut Held {
        self.holders[holder.index()].as_mut().expect("a holder has joined")
    }
}

#[cfg(test)]
mod tests;
