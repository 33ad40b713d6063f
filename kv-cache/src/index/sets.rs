//! Sets of members, for blocks that several holders have.
//!
//! Each is a sorted array in a place of 2, 4, 8, ... members, filled up with [`Member::NONE`]: equal
//! sets are equal memory, and a hot prefix's hundreds of holders are one piece to read.

use super::budget::Budget;
use super::member::{Member, Seat, SetId, Word};

/// All sets, by size.
pub(super) struct Sets {
    classes: [Class; CLASSES],
}

/// Places of one size.
struct Class {
    /// Members of a place, `1 << shift`.
    shift: u32,
    chunks: Vec<Box<[Member; CHUNK]>>,
    /// Places that have been in use.
    places: u32,
    /// The first free one of them, which names the next in its first member's stead; [`NOBODY`]: none.
    free: u32,
}

/// Members of the largest set.
pub(super) const MEMBERS_MAX: usize = CHUNK;
/// Members of a chunk, 64 KiB: what a class grows by.
const CHUNK: usize = 16_384;
const CHUNK_BYTES: usize = size_of::<[Member; CHUNK]>() + size_of::<usize>();
/// Places of 2 to 16,384 members.
const CLASSES: usize = CHUNK.trailing_zeros() as usize;
/// A set's number is its class and its place there.
const PLACE_BITS: u32 = 27;
/// Of free places: the last one.
const NOBODY: u32 = u32::MAX;

// === impl Sets ===

impl Sets {
    pub(super) fn new() -> Self {
        Self { classes: std::array::from_fn(|class| Class::new(class as u32 + 1)) }
    }

    /// The members, in order of their seats.
    pub(super) fn members(&self, set: SetId) -> &[Member] {
        let place = self.place(set);
        &place[..place.partition_point(|member| *member != Member::NONE)]
    }

    /// Asks for a set's cache line without waiting for it.
    pub(super) fn touch(&self, set: SetId) -> u64 {
        self.place(set)[0].0.into()
    }

    /// Makes a set of two; `None` if there are no bytes for it.
    pub(super) fn pair(
        &mut self,
        one: Member,
        other: Member,
        budget: &mut Budget,
    ) -> Option<SetId> {
        let set = self.take(0, budget)?;
        self.place_mut(set).copy_from_slice(&[one.min(other), one.max(other)]);
        Some(set)
    }

    /// Adds a member whose seat has none. `None` if there are no bytes for it.
    pub(super) fn add(&mut self, set: SetId, member: Member, budget: &mut Budget) -> Option<SetId> {
        let (len, at) = (self.members(set).len(), self.position(set, member.seat()));
        let set = if len == self.place(set).len() { self.widen(set, budget)? } else { set };
        let place = self.place_mut(set);
        place.copy_within(at..len, at + 1);
        place[at] = member;
        Some(set)
    }

    pub(super) fn find(&self, set: SetId, seat: Seat) -> Option<Member> {
        let member = self.place(set).get(self.position(set, seat)).copied()?;
        (member != Member::NONE && member.seat() == seat).then_some(member)
    }

    /// Replaces the member of the same seat.
    pub(super) fn replace(&mut self, set: SetId, member: Member) {
        let at = self.position(set, member.seat());
        self.place_mut(set)[at] = member;
    }

    /// Keeps some members only. Says what there is to keep of the block then.
    pub(super) fn retain(&mut self, set: SetId, keep: impl Fn(Member) -> bool) -> Option<Word> {
        let mut kept = 0;
        let place = self.place_mut(set);
        for at in 0..place.len() {
            if place[at] != Member::NONE && keep(place[at]) {
                place[kept] = place[at];
                kept += 1;
            }
        }
        place[kept..].fill(Member::NONE);
        self.fit(set, kept)
    }

    /// Removes a seat's member. Says what there is to keep of the block then.
    pub(super) fn remove(&mut self, set: SetId, seat: Seat) -> Option<Word> {
        let (len, at) = (self.members(set).len(), self.position(set, seat));
        let place = self.place_mut(set);
        place.copy_within(at + 1..len, at);
        place[len - 1] = Member::NONE;
        self.fit(set, len - 1)
    }

    /// Gives places back that are too large for `len` members.
    fn fit(&mut self, set: SetId, len: usize) -> Option<Word> {
        if len > 1 {
            return Some(Word::many(self.narrow(set, len)));
        }
        let alone = (len == 1).then(|| Word::one(self.place(set)[0]));
        self.give(set);
        alone
    }

    /// Moves a set to a place of twice the size.
    fn widen(&mut self, set: SetId, budget: &mut Budget) -> Option<SetId> {
        let wider = self.take(set.class() + 1, budget)?;
        self.carry(set, wider);
        Some(wider)
    }

    /// Moves a set to a place of half the size if it fills a quarter only and there is a free one.
    fn narrow(&mut self, set: SetId, len: usize) -> SetId {
        if len * 4 > self.place(set).len() {
            return set;
        }
        let class = set.class() - 1;
        let Some(place) = self.classes[class].reuse() else { return set };
        let narrower = SetId::new(class, place);
        self.carry(set, narrower);
        narrower
    }

    fn carry(&mut self, from: SetId, to: SetId) {
        for at in 0..self.place(to).len() {
            let member = self.place(from).get(at).copied().unwrap_or(Member::NONE);
            self.place_mut(to)[at] = member;
        }
        self.give(from);
    }

    /// Where a seat's member is or would be.
    fn position(&self, set: SetId, seat: Seat) -> usize {
        self.place(set).partition_point(|member| *member < Member::least(seat))
    }

    fn take(&mut self, class: usize, budget: &mut Budget) -> Option<SetId> {
        let class_of = self.classes.get_mut(class)?;
        let place = class_of.reuse().or_else(|| class_of.append(budget))?;
        Some(SetId::new(class, place))
    }

    fn give(&mut self, set: SetId) {
        self.classes[set.class()].give(set.place());
    }

    fn place(&self, set: SetId) -> &[Member] {
        self.classes[set.class()].place(set.place())
    }

    fn place_mut(&mut self, set: SetId) -> &mut [Member] {
        self.classes[set.class()].place_mut(set.place())
    }
}

// === impl Class ===

impl Class {
    fn new(shift: u32) -> Self {
        Self { shift, chunks: Vec::new(), places: 0, free: NOBODY }
    }

    fn reuse(&mut self) -> Option<u32> {
        let place = (self.free != NOBODY).then_some(self.free)?;
        self.free = self.place(place)[0].0;
        Some(place)
    }

    fn append(&mut self, budget: &mut Budget) -> Option<u32> {
        let place = self.places;
        if (place as usize) << self.shift == self.chunks.len() * CHUNK {
            ((place as usize) < (1 << PLACE_BITS)).then_some(())?;
            budget.take(CHUNK_BYTES)?;
            let chunk = vec![Member::NONE; CHUNK].into_boxed_slice();
            self.chunks.push(chunk.try_into().unwrap_or_else(|_| unreachable!("as many")));
        }
        self.places += 1;
        Some(place)
    }

    fn give(&mut self, place: u32) {
        let next = Member(self.free);
        self.place_mut(place)[0] = next;
        self.free = place;
    }

    fn place(&self, place: u32) -> &[Member] {
        let first = (place as usize) << self.shift;
        &self.chunks[first / CHUNK][first % CHUNK..][..1 << self.shift]
    }

    fn place_mut(&mut self, place: u32) -> &mut [Member] {
        let first = (place as usize) << self.shift;
        &mut self.chunks[first / CHUNK][first % CHUNK..][..1 << self.shift]
    }
}

// === impl SetId ===

impl SetId {
    fn new(class: usize, place: u32) -> Self {
        Self((class as u32) << PLACE_BITS | place)
    }

    fn class(self) -> usize {
        (self.0 >> PLACE_BITS) as usize
    }

    fn place(self) -> u32 {
        self.0 & ((1 << PLACE_BITS) - 1)
    }
}
