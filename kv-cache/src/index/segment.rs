//! A part of the table that is filled, split and swept at once.

use super::member::Word;

/// Buckets of a segment: 64 KiB, which are split in some tens of microseconds.
pub(super) const BUCKETS: usize = 1024;
/// Slots of a bucket: what a cache line holds.
pub(super) const SLOTS: usize = 5;
/// Blocks from which on a segment is split: beyond four fifths, one bucket in three passes some on.
pub(super) const SPLIT_AT: usize = BUCKETS * SLOTS / 5 * 4;
/// Blocks that a segment takes where it can't be split: some slots stay free, or searches get long.
pub(super) const FULL_AT: usize = BUCKETS * SLOTS / 20 * 19;

/// A cache line of blocks: a search reads one, hardly ever two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Bucket {
    tags: [u64; SLOTS],
    words: [Word; SLOTS],
    /// Blocks that found no room here and are in a bucket further on.
    passed: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Buckets, each block in the first from its own one on that had room.
pub(super) struct Segment {
    buckets: Box<[Bucket; BUCKETS]>,
    blocks: usize,
    /// Leading bits of a tag that are the same for all its blocks.
    pub(super) depth: u32,
}

/// Where in a segment a block is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    bucket: usize,
    slot: usize,
}

/// The tag of an empty slot.
const EMPTY: u64 = 0;

// === impl Bucket ===

impl Bucket {
    const EMPTY: Self = Self { tags: [EMPTY; SLOTS], words: [Word::NONE; SLOTS], passed: 0 };

    /// Compares all tags before it decides: which slot it will be, no processor guesses right.
    fn slot_of(&self, tag: u64) -> Option<usize> {
        let equal = |slot: usize| u32::from(self.tags[slot] == tag) << slot;
        let slots = (0..SLOTS).fold(0, |slots, slot| slots | equal(slot));
        (slots != 0).then(|| slots.trailing_zeros() as usize)
    }
}

// === impl Segment ===

impl Segment {
    pub(super) fn new(depth: u32) -> Self {
        let buckets = vec![Bucket::EMPTY; BUCKETS].into_boxed_slice();
        let buckets = buckets.try_into().unwrap_or_else(|_| unreachable!("as many as there are"));
        Self { buckets, blocks: 0, depth }
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Reads a word of a tag's bucket, so that it is on its way while others are asked for.
    pub(super) fn touch(&self, tag: u64) -> u64 {
        self.buckets[home(tag)].tags[0]
    }

    pub(super) fn find(&self, tag: u64) -> Option<Place> {
        for bucket in way(tag) {
            if let Some(slot) = self.buckets[bucket].slot_of(tag) {
                return Some(Place { bucket, slot });
            }
            if self.buckets[bucket].passed == 0 {
                return None;
            }
        }
        None
    }

    pub(super) fn word(&self, place: Place) -> Word {
        self.buckets[place.bucket].words[place.slot]
    }

    pub(super) fn set(&mut self, place: Place, word: Word) {
        self.buckets[place.bucket].words[place.slot] = word;
    }

    /// Adds a block that isn't there.
    ///
    /// # Panics
    /// If all slots are taken.
    pub(super) fn add(&mut self, tag: u64, word: Word) {
        for bucket in way(tag) {
            let bucket = &mut self.buckets[bucket];
            if let Some(slot) = bucket.slot_of(EMPTY) {
                (bucket.tags[slot], bucket.words[slot]) = (tag, word);
                self.blocks += 1;
                return;
            }
            bucket.passed += 1;
        }
        panic!("a segment is never full");
    }

    pub(super) fn remove(&mut self, place: Place) {
        let tag = std::mem::replace(&mut self.buckets[place.bucket].tags[place.slot], EMPTY);
        for bucket in way(tag).take_while(|bucket| *bucket != place.bucket) {
            self.buckets[bucket].passed -= 1;
        }
        self.blocks -= 1;
    }

    /// Gives each block to `keep`, which says what becomes of it; `None`: it goes.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Word) -> Option<Word>) {
        for (bucket, slot) in
            (0..BUCKETS).flat_map(|bucket| (0..SLOTS).map(move |slot| (bucket, slot)))
        {
            let place = Place { bucket, slot };
            if self.buckets[bucket].tags[slot] == EMPTY {
                continue;
            }
            match keep(self.word(place)) {
                Some(word) => self.set(place, word),
                None => self.remove(place),
            }
        }
    }

    /// Takes out what has the first bit behind the common ones set, and puts it into a segment of its own.
    pub(super) fn split(&mut self) -> Self {
        let depth = self.depth + 1;
        let whole = std::mem::replace(self, Self::new(depth));
        let mut upper = Self::new(depth);
        for bucket in whole.buckets.iter() {
            for (tag, word) in
                bucket.tags.iter().zip(bucket.words).filter(|(tag, _)| **tag != EMPTY)
            {
                let half = if tag >> (64 - depth) & 1 == 0 { &mut *self } else { &mut upper };
                half.add(*tag, word);
            }
        }
        upper
    }
}

/// The bucket in which a block belongs. Its bits are the last ones, which no directory comes to.
fn home(tag: u64) -> usize {
    tag as usize % BUCKETS
}

/// The buckets in which a block may be, in order.
fn way(tag: u64) -> impl Iterator<Item = usize> {
    (0..BUCKETS).map(move |step| (home(tag) + step) % BUCKETS)
}
