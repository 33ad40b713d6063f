//! Which KV blocks can be found at this worker, told to each follower: a snapshot, then numbered changes.

use std::collections::VecDeque;
use std::sync::Arc;

use kv_cache::{
    BlockEvent, BlockEvents, BlockHash, BlockPool, CommittedBlock, IndexDigest, Snapshot, Tier,
};
use parking_lot::Mutex;
use tracing::error;
use words::{KvNews, KvNewsKind, KvRun};

/// Changes that are kept for those who have not taken them, 2 MiB: ten seconds' worth of a full cache under 50,000 prompt tokens a
/// second. Who comes later gets a snapshot.
const KEPT_MAX: usize = 65_536;

/// Blocks in one message: 256 KiB.
const MESSAGE_BLOCKS_MAX: usize = 16_384;

/// What changed in a pool's caches, kept for whoever follows. A clone is the same one.
///
/// The pool keeps its events for one reader only: this one. Nothing is kept before the first follower's snapshot.
#[derive(Clone, Debug)]
pub(super) struct KvFeed(Arc<Mutex<Kept>>);

/// One follower's place in the feed.
#[derive(Debug)]
pub(super) struct KvFollower {
    feed: KvFeed,
    /// The number of the last change it was told, or is about to be.
    number: u64,
    /// Parts of a snapshot that are still to be told.
    parts: VecDeque<KvNews>,
}

#[derive(Debug)]
struct Kept {
    pool: BlockPool,
    /// The last ones, oldest first.
    changes: VecDeque<Change>,
    /// The number of the last one.
    number: u64,
    /// What all blocks add up to after it.
    digest: IndexDigest,
}

/// A block can be found in a tier now, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    hash: BlockHash,
    tier: Tier,
    is_there: bool,
}

// === impl KvFeed ===

impl KvFeed {
    pub(super) fn new(pool: BlockPool) -> Self {
        let (changes, digest) = (VecDeque::new(), IndexDigest::default());
        Self(Arc::new(Mutex::new(Kept { pool, changes, number: 0, digest })))
    }

    /// A follower who has all changes up to `number`; 0: none.
    pub(super) fn follow(&self, number: u64) -> KvFollower {
        KvFollower { feed: self.clone(), number, parts: VecDeque::new() }
    }
}

// === impl KvFollower ===

impl KvFollower {
    /// The next news, if there are any.
    pub(super) fn next(&mut self) -> Option<KvNews> {
        if let Some(part) = self.parts.pop_front() {
            return Some(part);
        }
        let mut kept = self.feed.0.lock();
        kept.catch_up();
        if kept.reaches(self.number) {
            let news = kept.since(self.number)?;
            self.number = news.number;
            return Some(news);
        }
        let blocks = kept.snapshot();
        let (number, digest) = (kept.number, kept.digest);
        drop(kept);
        self.number = number;
        self.parts = snapshot_parts(number, &blocks, digest);
        self.parts.pop_front()
    }
}

// === impl Kept ===

impl Kept {
    /// Takes what has happened in the pool. What the pool had to forget is a gap, which nobody's number reaches over.
    fn catch_up(&mut self) {
        if self.number > 0 {
            let news = self.pool.drain_events(usize::MAX);
            self.keep(&news);
        }
    }

    fn keep(&mut self, BlockEvents { events, needs_snapshot }: &BlockEvents) {
        if *needs_snapshot {
            self.number += 1;
            self.changes.clear();
        }
        self.number += events.len() as u64;
        let changes = events.iter().map(Change::of);
        changes.clone().for_each(|change| change.count(&mut self.digest));
        self.changes.extend(changes);
        let over = self.changes.len().saturating_sub(KEPT_MAX);
        self.changes.drain(..over);
    }

    /// Whether every change after `number` is kept.
    fn reaches(&self, number: u64) -> bool {
        let first = self.number - self.changes.len() as u64;
        number > 0 && (first..=self.number).contains(&number)
    }

    /// The first of the changes after `number`, as many as go into a message.
    fn since(&self, number: u64) -> Option<KvNews> {
        let behind = (self.number - number) as usize;
        let told = behind.min(MESSAGE_BLOCKS_MAX);
        let from = self.changes.len() - behind;
        let runs = runs(self.changes.range(from..from + told).copied());
        let number = number + told as u64;
        let digest = (told == behind).then_some(self.digest);
        (told > 0).then_some(KvNews { number, kind: KvNewsKind::Changes, runs, digest })
    }

    /// Everything there is now.
    fn snapshot(&mut self) -> Vec<Change> {
        let Snapshot { before, blocks } = self.pool.snapshot();
        // Before the first snapshot nothing was kept: that is number 1.
        self.keep(&before);
        let there = |(block, tier): (CommittedBlock, Tier)| Change {
            hash: block.hash,
            tier,
            is_there: true,
        };
        let blocks: Vec<Change> = blocks.into_iter().map(there).collect();
        let mut digest = IndexDigest::default();
        blocks.iter().for_each(|block| block.count(&mut digest));
        if !before.needs_snapshot && digest != self.digest {
            error!(?digest, kept = ?self.digest, "the events of the pool don't add up to what it has: a bug");
        }
        self.digest = digest;
        blocks
    }
}

// === impl Change ===

impl Change {
    fn of(event: &BlockEvent) -> Self {
        match *event {
            BlockEvent::Committed { block, tier } => {
                Self { hash: block.hash, tier, is_there: true }
            }
            BlockEvent::Evicted { hash, tier } => Self { hash, tier, is_there: false },
        }
    }

    fn count(self, digest: &mut IndexDigest) {
        match self.is_there {
            true => digest.add(self.hash, self.tier),
            false => digest.remove(self.hash, self.tier),
        }
    }
}

fn snapshot_parts(number: u64, blocks: &[Change], digest: IndexDigest) -> VecDeque<KvNews> {
    let count = blocks.len().div_ceil(MESSAGE_BLOCKS_MAX).max(1);
    let part = |index: usize| {
        let from = index * MESSAGE_BLOCKS_MAX;
        let told = &blocks[from..blocks.len().min(from + MESSAGE_BLOCKS_MAX)];
        let is_last = index + 1 == count;
        let kind = KvNewsKind::Snapshot { is_first: index == 0, is_last };
        let digest = is_last.then_some(digest);
        KvNews { number, kind, runs: runs(told.iter().copied()), digest }
    };
    (0..count).map(part).collect()
}

/// Changes of one kind, one after the other, are told as one.
fn runs(changes: impl Iterator<Item = Change>) -> Vec<KvRun> {
    let mut runs: Vec<KvRun> = Vec::new();
    for Change { hash, tier, is_there } in changes {
        match runs.last_mut() {
            Some(run) if (run.tier, run.is_there) == (tier, is_there) => run.hashes.push(hash),
            _ => runs.push(KvRun { tier, is_there, hashes: vec![hash] }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use kv_cache::ChainHasher;

    use super::*;

    /// A pool, a feed of it, and how many blocks were made up.
    struct Fed {
        pool: BlockPool,
        feed: KvFeed,
        made: u32,
    }

    impl Fed {
        fn of_blocks(blocks: u32) -> Self {
            let pool = BlockPool::new(blocks, 1);
            Self { feed: KvFeed::new(pool.clone()), pool, made: 0 }
        }

        /// Publishes `count` new blocks and lets go of them.
        fn publish(&mut self, count: u32) {
            for token in self.made..self.made + count {
                let hash = ChainHasher::new("m", b"").extend(None, &[token]);
                let block = self.pool.reserve(1).unwrap().bind().unwrap();
                block.seal(CommittedBlock { hash, parent: None, depth: 0 }, &[token]);
            }
            self.made += count;
        }
    }

    /// What a follower knows, by what it was told.
    fn told(follower: &mut KvFollower, known: &mut Vec<BlockHash>) -> Vec<KvNewsKind> {
        let mut kinds = Vec::new();
        while let Some(news) = follower.next() {
            if matches!(news.kind, KvNewsKind::Snapshot { is_first: true, .. }) {
                known.clear();
            }
            assert!(news.blocks() <= MESSAGE_BLOCKS_MAX);
            for run in news.runs {
                match run.is_there {
                    true => known.extend(run.hashes),
                    false => known.retain(|hash| !run.hashes.contains(hash)),
                }
            }
            kinds.push(news.kind);
        }
        kinds
    }

    fn there(pool: &BlockPool) -> Vec<BlockHash> {
        let mut hashes: Vec<_> =
            pool.snapshot().blocks.iter().map(|(block, _)| block.hash).collect();
        hashes.sort();
        hashes
    }

    const WHOLE: KvNewsKind = KvNewsKind::Snapshot { is_first: true, is_last: true };

    #[test]
    fn a_follower_gets_a_snapshot_and_then_what_changes() {
        let mut fed = Fed::of_blocks(4);
        fed.publish(2);
        let (mut follower, mut known) = (fed.feed.follow(0), Vec::new());
        assert_eq!(told(&mut follower, &mut known), [WHOLE]);
        assert_eq!(told(&mut follower, &mut known), []);
        fed.publish(5);
        assert_eq!(told(&mut follower, &mut known), [KvNewsKind::Changes]);
        known.sort();
        assert_eq!(known, there(&fed.pool));
    }

    #[test]
    fn what_one_takes_is_not_taken_from_others() {
        let mut fed = Fed::of_blocks(4);
        let (mut early, mut known) = (fed.feed.follow(0), Vec::new());
        assert_eq!(told(&mut early, &mut known), [WHOLE]);
        fed.publish(3);
        let (mut late, mut known_late) = (fed.feed.follow(0), Vec::new());
        assert_eq!(told(&mut late, &mut known_late), [WHOLE]);
        assert_eq!(told(&mut early, &mut known), [KvNewsKind::Changes]);
        known.sort();
        known_late.sort();
        assert_eq!(known, known_late);
    }

    #[test]
    fn who_comes_back_goes_on_where_it_was() {
        let mut fed = Fed::of_blocks(4);
        let (mut follower, mut known) = (fed.feed.follow(0), Vec::new());
        told(&mut follower, &mut known);
        fed.publish(6);
        let mut again = fed.feed.follow(follower.number);
        assert_eq!(told(&mut again, &mut known), [KvNewsKind::Changes]);
        known.sort();
        assert_eq!(known, there(&fed.pool));
        let mut from_the_future = fed.feed.follow(again.number + 1);
        assert_eq!(told(&mut from_the_future, &mut known), [WHOLE]);
    }

    #[test]
    fn who_missed_too_much_gets_a_snapshot() {
        let mut fed = Fed::of_blocks(2);
        let (mut slow, mut known) = (fed.feed.follow(0), Vec::new());
        told(&mut slow, &mut known);
        // More than the pool keeps.
        fed.publish(20_000);
        assert_eq!(told(&mut slow, &mut known), [WHOLE]);
        let mut quick = fed.feed.follow(slow.number);
        for _ in 0..20 {
            fed.publish(4_000);
            told(&mut quick, &mut Vec::new());
        }
        // More than the feed keeps.
        assert_eq!(told(&mut slow, &mut known), [WHOLE]);
        known.sort();
        assert_eq!(known, there(&fed.pool));
    }

    #[test]
    fn much_is_told_in_parts() {
        let mut fed = Fed::of_blocks(40_000);
        fed.publish(40_000);
        let (mut follower, mut known) = (fed.feed.follow(0), Vec::new());
        let part = |is_first, is_last| KvNewsKind::Snapshot { is_first, is_last };
        let parts = [part(true, false), part(false, false), part(false, true)];
        assert_eq!(told(&mut follower, &mut known), parts);
        assert_eq!(known.len(), 40_000);
    }
}
