//! How much of a prompt each holder has, by looking at few of its blocks.
//!
//! Blocks come to a tier from a prompt's first one on, and leave from its last one on. So what a holder has
//! is told by where it ends, and ends are found by narrowing gaps: between two blocks that the same
//! holders have, nobody ends. The blocks that a round looks at are asked for at once. A hole in the
//! middle may stay unseen; the worker finds it, and computes from there.

use super::Hit;
use super::member::{Member, Seat, Word};
use super::seats::Seats;
use super::store::Store;
use super::table::Tag;
use crate::{BlockHash, Tier};

/// What a search finds, and what it needs for that: kept by whoever searches, so that nothing is allocated.
#[derive(Debug, Default)]
pub struct Hits {
    hits: Vec<Hit>,
    ends: Vec<End>,
    probes: Vec<Probe>,
    gaps: Vec<Gap>,
}

/// How much a seat has: leading blocks in a tier or a faster one.
#[derive(Clone, Copy, Debug)]
struct End {
    seat: Seat,
    blocks: [u32; Tier::ALL.len()],
}

/// A block to be looked at, and what was seen.
#[derive(Clone, Copy, Debug)]
struct Probe {
    at: usize,
    tag: Tag,
    word: Word,
}

/// Two blocks between which a holder's part ends.
#[derive(Clone, Copy, Debug)]
struct Gap {
    low: Probe,
    high: Probe,
}

/// A search under way.
pub(super) struct Search<'a> {
    pub(super) store: &'a Store,
    pub(super) hashes: &'a [BlockHash],
    pub(super) hits: &'a mut Hits,
}

/// Parts into which a round divides a gap, and how much longer each step of the first round is than the one before.
///
/// At 10 million blocks one more costs some 40 ns, and a round 200 of waiting, which its blocks share.
const PARTS: usize = 1 << PARTS_LOG2;
const PARTS_LOG2: u32 = 3;
/// Members compared at most, some 50 us: beyond, all that end in a gap count as if they ended at its start.
const COMPARED_MAX: usize = 65_536;

// === impl Hits ===

impl Hits {
    /// Those that have the first block at least, in no particular order.
    #[must_use]
    pub fn as_slice(&self) -> &[Hit] {
        &self.hits
    }
}

// === impl Search ===

impl Search<'_> {
    pub(super) fn run(mut self, seats: &Seats) {
        self.hits.hits.clear();
        self.begin();
        if !self.hits.ends.is_empty() {
            self.narrow();
            self.close();
        }
        let hits = self.hits.ends.iter().filter_map(|end| end.hit(seats));
        self.hits.hits.extend(hits);
    }

    /// Looks at both ends, and from each at blocks in longer and longer steps: most prompts begin as many do, or
    /// as one that was answered a while ago.
    fn begin(&mut self) {
        let len = self.hashes.len();
        let steps = || (0..usize::BITS / PARTS_LOG2).map(|power| 1 << (power * PARTS_LOG2));
        let front = steps().map(|step: usize| step - 1).take_while(|at| at * 2 < len);
        let back = steps().rev().filter_map(|step| len.checked_sub(step));
        let all = front.chain(back.filter(|at| at * 2 >= len));
        self.hits.probes.clear();
        self.hits.probes.extend(all.map(|at| Probe::unseen(at, self.hashes)));
        self.look();
        let first = self.hits.probes.first().map_or(Word::NONE, |probe| probe.word);
        self.hits.ends.clear();
        let ends = self.store.members(&first).iter().map(|member| End::new(*member, len));
        self.hits.ends.extend(ends);
    }

    /// Looks into gaps, round by round, until none is left or it has taken long enough.
    fn narrow(&mut self) {
        let mut compared = self.compare();
        while compared < COMPARED_MAX && self.hits.gaps.iter().any(Gap::is_wide) {
            self.hits.probes.clear();
            let probes = self.hits.gaps.iter().flat_map(|gap| gap.probes(self.hashes));
            self.hits.probes.extend(probes);
            self.look();
            compared += self.compare();
        }
    }

    fn look(&mut self) {
        self.store.touch(self.hits.probes.iter().map(|probe| probe.tag));
        for probe in &mut self.hits.probes {
            probe.word = self.store.word(probe.tag);
        }
        self.store.touch_sets(self.hits.probes.iter().map(|probe| probe.word));
    }

    /// Finds the gaps among the blocks looked at last. Says how many members it compared.
    fn compare(&mut self) -> usize {
        let Hits { probes, gaps, .. } = &mut *self.hits;
        let mut compared = 0;
        gaps.clear();
        gaps.extend(probes.array_windows().filter_map(|[low, high]| {
            if low.at >= high.at || low.word == high.word {
                return None;
            }
            let (below, above) = (self.store.members(&low.word), self.store.members(&high.word));
            compared += below.len() + above.len();
            let ends = below != above && losses(below, above).next().is_some();
            ends.then_some(Gap { low: *low, high: *high })
        }));
        compared
    }

    /// Ends whoever ends in a gap, at its start.
    fn close(&mut self) {
        let Hits { gaps, ends, .. } = &mut *self.hits;
        for Gap { low, high } in gaps {
            let (below, above) = (self.store.members(&low.word), self.store.members(&high.word));
            let mut next = 0;
            for (seat, tiers) in losses(below, above) {
                // Where hundreds end in the same gap, mostly the next one does.
                if ends.get(next).is_none_or(|end| end.seat != seat) {
                    next = ends.partition_point(|end| end.seat.0 < seat.0);
                }
                if let Some(end) = ends.get_mut(next).filter(|end| end.seat == seat) {
                    end.shorten(tiers, low.at + 1);
                    next += 1;
                }
            }
        }
    }
}

/// The seats that have less above than below, and the tiers that they don't have it in any more.
fn losses<'a>(
    below: &'a [Member],
    mut above: &'a [Member],
) -> impl Iterator<Item = (Seat, std::ops::Range<usize>)> + 'a {
    below.iter().filter_map(move |member| {
        let seat = member.seat();
        while above.first().is_some_and(|other| *other < Member::least(seat)) {
            above = &above[1..];
        }
        let other = above.first().filter(|other| other.seat() == seat);
        let level = other.map_or(Tier::ALL.len(), |other| other.level());
        (member.level() < level).then(|| (seat, member.level()..level))
    })
}

// === impl End ===

impl End {
    /// The end of whoever has the first block, if it has `len` of them.
    fn new(first: Member, len: usize) -> Self {
        let mut blocks = [0; Tier::ALL.len()];
        blocks[first.level()..].fill(len as u32);
        Self { seat: first.seat(), blocks }
    }

    fn shorten(&mut self, tiers: std::ops::Range<usize>, len: usize) {
        for blocks in &mut self.blocks[tiers] {
            *blocks = (*blocks).min(len as u32);
        }
    }

    /// Itself, unless the seat's holder has left.
    fn hit(&self, seats: &Seats) -> Option<Hit> {
        Some(Hit { holder: seats.owner(self.seat)?, blocks: self.blocks })
    }
}

// === impl Probe ===

impl Probe {
    fn unseen(at: usize, hashes: &[BlockHash]) -> Self {
        Self { at, tag: Tag::of(hashes[at]), word: Word::NONE }
    }
}

// === impl Gap ===

impl Gap {
    fn is_wide(&self) -> bool {
        self.high.at - self.low.at > 1
    }

    /// Its ends, and blocks that divide it evenly.
    fn probes(self, hashes: &[BlockHash]) -> impl Iterator<Item = Probe> {
        let step = (self.high.at - self.low.at).div_ceil(PARTS);
        let inner = (self.low.at..self.high.at).step_by(step).skip(1);
        [self.low].into_iter().chain(inner.map(|at| Probe::unseen(at, hashes))).chain([self.high])
    }
}
