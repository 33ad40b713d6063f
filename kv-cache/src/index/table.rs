//! Words by block: extendible hashing, so that it grows by a segment at a time and never stalls.

use super::budget::Budget;
use super::member::Word;
use super::segment::{BUCKETS, Bucket, FULL_AT, Place, SPLIT_AT, Segment};
use crate::BlockHash;

/// Every block of an index, each once.
pub(super) struct Table {
    /// The segment of each value of a tag's first `depth` bits.
    directory: Vec<u32>,
    segments: Vec<Segment>,
    depth: u32,
}

/// The half of a block's name that the table knows.
///
/// Two of 10 million blocks share one with a chance of 3 in a million. Then one is taken for the other,
/// which costs a wrong estimate: what a worker has it finds by the whole name and the tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tag(u64);

/// Where in a table a block is, until the next one is added.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    segment: usize,
    place: Place,
}

/// Bits that a directory looks at at most: beyond, it would take as many bytes as its segments.
const DEPTH_MAX: u32 = 24;
/// What a segment takes, with its entry in the list and in the directory.
const SEGMENT_BYTES: usize = size_of::<Bucket>() * BUCKETS + size_of::<Segment>();

// === impl Tag ===

impl Tag {
    pub(super) fn of(hash: BlockHash) -> Self {
        // Zero means empty.
        Self(((hash.0 >> 64) as u64).max(1))
    }
}

// === impl Table ===

impl Table {
    pub(super) fn new() -> Self {
        Self { directory: Vec::new(), segments: Vec::new(), depth: 0 }
    }

    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn blocks(&self) -> usize {
        self.segments.iter().map(Segment::blocks).sum()
    }

    /// Asks for a block's cache line without waiting for it.
    pub(super) fn touch(&self, tag: Tag) -> u64 {
        self.segment_of(tag).map_or(0, |segment| self.segments[segment].touch(tag.0))
    }

    pub(super) fn find(&self, tag: Tag) -> Option<Slot> {
        let segment = self.segment_of(tag)?;
        Some(Slot { segment, place: self.segments[segment].find(tag.0)? })
    }

    pub(super) fn word(&self, slot: Slot) -> Word {
        self.segments[slot.segment].word(slot.place)
    }

    pub(super) fn set(&mut self, slot: Slot, word: Word) {
        self.segments[slot.segment].set(slot.place, word);
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        self.segments[slot.segment].remove(slot.place);
    }

    /// Adds a block that isn't there; `None` if there are no bytes for it.
    pub(super) fn add(&mut self, tag: Tag, word: Word, budget: &mut Budget) -> Option<()> {
        while self.is_due(tag) && self.grow(tag, budget).is_some() {}
        let segment = self.segment_of(tag)?;
        let segment = &mut self.segments[segment];
        (segment.blocks() < FULL_AT).then(|| segment.add(tag.0, word))
    }

    /// As [`Segment::retain`].
    pub(super) fn retain(&mut self, segment: usize, keep: impl FnMut(Word) -> Option<Word>) {
        self.segments[segment].retain(keep);
    }

    /// The segment in which a block would be; `None` before there is any.
    pub(super) fn segment_of(&self, Tag(tag): Tag) -> Option<usize> {
        // In two steps, as a shift by all 64 bits is none.
        let prefix = tag >> 1 >> (63 - self.depth);
        self.directory.get(prefix as usize).map(|segment| *segment as usize)
    }

    fn is_due(&self, tag: Tag) -> bool {
        self.segment_of(tag).is_none_or(|segment| self.segments[segment].blocks() >= SPLIT_AT)
    }

    /// Adds a segment: the first, or half of a tag's.
    fn grow(&mut self, tag: Tag, budget: &mut Budget) -> Option<()> {
        let Some(segment) = self.segment_of(tag) else {
            budget.take(SEGMENT_BYTES + size_of::<u32>())?;
            self.segments.push(Segment::new(0));
            self.directory.push(0);
            return Some(());
        };
        if self.segments[segment].depth == self.depth {
            self.deepen(budget)?;
        }
        budget.take(SEGMENT_BYTES)?;
        self.split(segment, tag);
        Some(())
    }

    /// Looks at one bit more.
    fn deepen(&mut self, budget: &mut Budget) -> Option<()> {
        (self.depth < DEPTH_MAX).then_some(())?;
        budget.take(size_of_val(&*self.directory))?;
        self.directory = self.directory.iter().flat_map(|segment| [*segment; 2]).collect();
        self.depth += 1;
        Some(())
    }

    fn split(&mut self, segment: usize, Tag(tag): Tag) {
        let upper = self.segments[segment].split();
        let entries = 1 << (self.depth - upper.depth);
        let first = (tag >> (64 - upper.depth) | 1) as usize * entries;
        self.directory[first..first + entries].fill(self.segments.len() as u32);
        self.segments.push(upper);
    }
}
