//! In which order cached blocks go: who is worth least goes first.
//!
//! The younger a block is, the more it is worth, measured in blocks that were released since; and for each time that it was found again, up to three, as much as if it were
//! younger by a quarter of the pool's blocks. So no past outlives the present for long. What continues a prefix is found no more often and released no later than the prefix: leaves go first.
//!
//! By how often they were found, blocks are in lists of which each is in the order of their release. The first of all is the
//! first of one of them: every step is O(1).

use super::list::{Links, List};
use crate::BlockId;

/// Times that a block was found which count, and none.
const CLASSES: usize = 4;

/// What being found once is worth: the age of one in so many of the pool's blocks.
///
/// Measured on two traces (ADR 39): a half is better where memory is shortest, and at some sizes worse than nothing at all.
const FOUND_SHARE: u64 = 4;

/// A prefix that was released when less than one in so many of the pool's blocks was released since, itself aside, and is found, counts as in use all
/// the while: prompts that wait are looked up again and again.
const SAME_USE_SHARE: u64 = 32;

/// The cached blocks of a pool.
pub(super) struct Order {
    /// Of every block.
    ranks: Box<[Rank]>,
    /// By how often they were found again; each least recently released first.
    classes: [List; CLASSES],
    /// Those with a copy in the tier below, which go before all others; in the order in which they would have gone.
    saved: List,
    /// Releases until now.
    clock: u64,
}

#[derive(Clone, Copy, Default)]
struct Rank {
    /// When it was released, or bound.
    at: u64,
    /// How often it was found since it was bound.
    found: u8,
    is_saved: bool,
}

/// A way through the blocks that aren't saved, in their order.
pub(super) struct Walk([Option<BlockId>; CLASSES]);

// === impl Order ===

impl Order {
    pub(super) fn new(blocks: u32) -> Self {
        Self {
            ranks: vec![Rank::default(); blocks as usize].into(),
            classes: std::array::from_fn(|_| List::new()),
            saved: List::new(),
            clock: 0,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.saved.len() + self.classes.iter().map(List::len).sum::<u32>()
    }

    pub(super) fn saved(&self) -> u32 {
        self.saved.len()
    }

    /// Notes that a block holds something new, which nobody has found yet.
    pub(super) fn begin(&mut self, block: BlockId) {
        self.ranks[block.index()] = Rank { at: self.clock, found: 0, is_saved: false };
    }

    /// Notes that a prefix was found, whose blocks are in no list.
    ///
    /// It counts for all of them or for none, by when the last of them was released, which was before the others: so what begins a
    /// prefix is never found less often than what continues it, and isn't evicted before.
    pub(super) fn note_found(&mut self, prefix: impl DoubleEndedIterator<Item = BlockId> + Clone) {
        let Some(last) = prefix.clone().next_back() else { return };
        let itself = prefix.clone().count() as u64 - 1;
        let since = self.clock - self.ranks[last.index()].at;
        if since < itself + self.ranks.len() as u64 / SAME_USE_SHARE {
            return;
        }
        for block in prefix {
            let rank = &mut self.ranks[block.index()];
            rank.found = (rank.found + 1).min(CLASSES as u8 - 1);
        }
    }

    /// Takes in a block that nobody owns any more.
    pub(super) fn push(&mut self, links: &mut Links, block: BlockId) {
        self.clock += 1;
        let rank = &mut self.ranks[block.index()];
        rank.at = self.clock;
        self.classes[usize::from(rank.found)].push_back(links, block);
    }

    /// Takes a block out.
    pub(super) fn remove(&mut self, links: &mut Links, block: BlockId) {
        let Rank { found, is_saved, .. } = self.ranks[block.index()];
        self.ranks[block.index()].is_saved = false;
        let list = if is_saved { &mut self.saved } else { &mut self.classes[usize::from(found)] };
        list.remove(links, block);
    }

    /// The block that goes first.
    pub(super) fn first(&self) -> Option<BlockId> {
        self.saved
            .first()
            .or_else(|| self.walk().0.into_iter().flatten().min_by_key(|it| self.worth(*it)))
    }

    pub(super) fn walk(&self) -> Walk {
        Walk(std::array::from_fn(|class| self.classes[class].first()))
    }

    /// The next block on the way; it may be taken out then.
    pub(super) fn next(&self, links: &Links, walk: &mut Walk) -> Option<BlockId> {
        let first = walk.0.into_iter().flatten().min_by_key(|block| self.worth(*block))?;
        let class = usize::from(self.ranks[first.index()].found);
        walk.0[class] = self.classes[class].after(links, first);
        Some(first)
    }

    /// Notes that a block has a copy in the tier below.
    pub(super) fn set_saved(&mut self, links: &mut Links, block: BlockId) {
        self.remove(links, block);
        self.saved.push_back(links, block);
        self.ranks[block.index()].is_saved = true;
    }

    pub(super) fn is_saved(&self, block: BlockId) -> bool {
        self.ranks[block.index()].is_saved
    }

    /// All of them, in no order; a list that isn't one ends after as many blocks as there are.
    pub(super) fn iter<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = BlockId> + 'a {
        let lists = self.classes.iter().chain([&self.saved]);
        lists.flat_map(|list| list.iter(links)).take(self.ranks.len() + 1)
    }

    /// A block that is in another list than it should be.
    pub(super) fn misfiled(&self, links: &Links) -> Option<BlockId> {
        let lists = self.classes.iter().chain([&self.saved]).enumerate();
        let listed = lists.flat_map(|(at, list)| list.iter(links).map(move |block| (at, block)));
        let is_filed = |at: usize, block: BlockId| {
            let Rank { found, is_saved, .. } = self.ranks[block.index()];
            at == if is_saved { CLASSES } else { usize::from(found) }
        };
        listed.take(self.ranks.len()).find(|(at, block)| !is_filed(*at, *block)).map(|it| it.1)
    }

    /// The less, the sooner it goes; of equals the one that was found less often goes first.
    fn worth(&self, block: BlockId) -> (u64, u8) {
        let Rank { at, found, .. } = self.ranks[block.index()];
        (at + u64::from(found) * (self.ranks.len() as u64 / FOUND_SHARE), found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool's order with all of its blocks released in their own order.
    fn released(blocks: u32) -> (Order, Links) {
        let (mut order, mut links) = (Order::new(blocks), Links::new(blocks));
        for block in (0..blocks).map(BlockId) {
            order.begin(block);
            order.push(&mut links, block);
        }
        (order, links)
    }

    /// Finds a block and releases it again, as often as that.
    fn find(order: &mut Order, links: &mut Links, block: u32, times: u32) {
        for _ in 0..times {
            order.remove(links, BlockId(block));
            order.note_found([BlockId(block)].into_iter());
            order.push(links, BlockId(block));
        }
    }

    fn all(order: &mut Order, links: &mut Links) -> Vec<u32> {
        let next = |order: &mut Order, links: &mut Links| {
            let first = order.first()?;
            order.remove(links, first);
            Some(first.0)
        };
        std::iter::from_fn(|| next(order, links)).collect()
    }

    #[test]
    fn what_was_found_outlives_a_quarter_of_the_pool_for_each_time() {
        let (mut order, mut links) = released(8);
        find(&mut order, &mut links, 3, 1);
        find(&mut order, &mut links, 5, 2);
        for block in [0, 1, 2] {
            order.remove(&mut links, BlockId(block));
            order.push(&mut links, BlockId(block));
        }
        // 3 was released at 9 and 5 at 11, and count as 11 and 15; the last three at 12 to 14.
        assert_eq!(all(&mut order, &mut links), [4, 6, 7, 3, 0, 1, 2, 5]);
    }

    #[test]
    fn who_looks_all_the_time_finds_once() {
        let (mut order, mut links) = released(64);
        find(&mut order, &mut links, 7, 1);
        find(&mut order, &mut links, 7, 9);
        assert_eq!(order.ranks[7].found, 1);
    }

    #[test]
    fn a_walk_is_the_order_and_saved_ones_come_before_it() {
        let (mut order, mut links) = released(8);
        find(&mut order, &mut links, 0, 1);
        let mut walk = order.walk();
        let walked: Vec<_> =
            std::iter::from_fn(|| order.next(&links, &mut walk)).map(|block| block.0).collect();
        assert_eq!(walked, [1, 2, 3, 4, 5, 6, 7, 0]);
        order.set_saved(&mut links, BlockId(4));
        assert_eq!((order.saved(), order.len(), order.misfiled(&links)), (1, 8, None));
        assert_eq!(all(&mut order, &mut links), [4, 1, 2, 3, 5, 6, 7, 0]);
    }
}
