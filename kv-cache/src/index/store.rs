//! Blocks and their members, within a bound of bytes.

use super::budget::Budget;
use super::member::{Holders, Member, Seat, SetId, Word};
use super::seats::Seats;
use super::sets::Sets;
use super::table::{Slot, Table, Tag};
use crate::Tier;

/// The table, and the sets that its words name.
pub(super) struct Store {
    table: Table,
    sets: Sets,
    budget: Budget,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was so already.
    Nothing,
    /// Another tier, or one of several less.
    Tier,
    /// A member more, or one less.
    Member,
}

// === impl Store ===

impl Store {
    pub(super) fn new(budget: Budget) -> Self {
        Self { table: Table::new(), sets: Sets::new(), budget }
    }

    pub(super) fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }

    pub(super) fn bytes(&self) -> usize {
        self.budget.taken()
    }

    pub(super) fn blocks(&self) -> usize {
        self.table.blocks()
    }

    pub(super) fn segments(&self) -> usize {
        self.table.segments()
    }

    /// Asks for blocks' cache lines, so that the misses overlap.
    pub(super) fn touch(&self, tags: impl Iterator<Item = Tag>) {
        std::hint::black_box(tags.fold(0, |sum, tag| sum ^ self.table.touch(tag)));
    }

    /// As [`Store::touch`], for the sets that words name.
    pub(super) fn touch_sets(&self, words: impl Iterator<Item = Word>) {
        std::hint::black_box(words.fold(0, |sum, word| sum ^ self.touch_set(word)));
    }

    pub(super) fn word(&self, tag: Tag) -> Word {
        self.table.find(tag).map_or(Word::NONE, |slot| self.table.word(slot))
    }

    pub(super) fn members<'a>(&'a self, word: &'a Word) -> &'a [Member] {
        match word.holders() {
            Holders::One(_) => word.alone(),
            Holders::Many(set) => self.sets.members(set),
        }
    }

    /// Notes that a seat has a block; `None` if there are no bytes for it.
    pub(super) fn insert(&mut self, tag: Tag, member: Member, seats: &Seats) -> Option<Change> {
        let Some(slot) = self.table.find(tag) else {
            self.table.add(tag, Word::one(member), &mut self.budget)?;
            return Some(Change::Member);
        };
        match self.table.word(slot).holders() {
            Holders::One(other) => self.join_one(slot, other, member, seats),
            Holders::Many(set) => self.join_many(slot, set, member),
        }
    }

    /// Notes that a seat has a block no more.
    pub(super) fn remove(&mut self, tag: Tag, seat: Seat, tier: Tier) -> Change {
        let Some(slot) = self.table.find(tag) else { return Change::Nothing };
        let found = match self.table.word(slot).holders() {
            Holders::One(member) => (member.seat() == seat).then_some(member),
            Holders::Many(set) => self.sets.find(set, seat),
        };
        let Some(member) = found.filter(|member| member.has(tier)) else { return Change::Nothing };
        match member.without(tier) {
            Some(left) => self.replace(slot, left),
            None => self.part(slot, seat),
        }
    }

    /// Forgets those of a segment's members whose holders have left.
    pub(super) fn sweep(&mut self, segment: usize, seats: &Seats) {
        let stays = |member: Member| seats.owner(member.seat()).is_some();
        let sets = &mut self.sets;
        self.table.retain(segment, |word| match word.holders() {
            Holders::One(member) => stays(member).then_some(word),
            Holders::Many(set) => sets.retain(set, stays),
        });
    }

    /// As [`Store::sweep`], where a block would be.
    pub(super) fn sweep_around(&mut self, tag: Tag, seats: &Seats) {
        if let Some(segment) = self.table.segment_of(tag) {
            self.sweep(segment, seats);
        }
    }

    fn touch_set(&self, word: Word) -> u64 {
        match word.holders() {
            Holders::One(_) => 0,
            Holders::Many(set) => self.sets.touch(set),
        }
    }

    fn join_one(
        &mut self,
        slot: Slot,
        other: Member,
        member: Member,
        seats: &Seats,
    ) -> Option<Change> {
        if other.seat() == member.seat() {
            return Some(self.join_tier(slot, other, member));
        }
        // Most blocks of a snapshot replace what the same holder had before it began anew.
        let word = match seats.owner(other.seat()) {
            None => Word::one(member),
            Some(_) => Word::many(self.sets.pair(other, member, &mut self.budget)?),
        };
        self.table.set(slot, word);
        Some(Change::Member)
    }

    fn join_many(&mut self, slot: Slot, set: SetId, member: Member) -> Option<Change> {
        if let Some(same) = self.sets.find(set, member.seat()) {
            return Some(self.join_tier(slot, same, member));
        }
        let set = self.sets.add(set, member, &mut self.budget)?;
        self.table.set(slot, Word::many(set));
        Some(Change::Member)
    }

    fn join_tier(&mut self, slot: Slot, had: Member, member: Member) -> Change {
        match had.with(member) {
            both if both == had => Change::Nothing,
            both => self.replace(slot, both),
        }
    }

    fn replace(&mut self, slot: Slot, member: Member) -> Change {
        match self.table.word(slot).holders() {
            Holders::One(_) => self.table.set(slot, Word::one(member)),
            Holders::Many(set) => self.sets.replace(set, member),
        }
        Change::Tier
    }

    fn part(&mut self, slot: Slot, seat: Seat) -> Change {
        let left = match self.table.word(slot).holders() {
            Holders::One(_) => None,
            Holders::Many(set) => self.sets.remove(set, seat),
        };
        match left {
            Some(word) => self.table.set(slot, word),
            None => self.table.remove(slot),
        }
        Change::Member
    }
}
