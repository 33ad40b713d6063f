//! Random histories of a pool against a model so simple that it is evidently right.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

const BLOCKS: u32 = 6;
const TOKENS: u32 = 2;

/// One step of a history. Indices are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Reserve(u32),
    Grow(usize, u32),
    Split(usize, u32),
    Bind(usize),
    Cancel(usize),
    Share(usize),
    Release(usize),
    Seal(usize, Content),
    Unseal(usize),
    Match(Vec<Content>),
    Caching(bool),
}

/// A block's name, parent and tokens from so small a world that names repeat and collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Content {
    committed: CommittedBlock,
    tokens: [TokenId; TOKENS as usize],
}

/// What the pool should know, kept the slow way.
#[derive(Default)]
struct Model {
    owners: BTreeMap<BlockId, u32>,
    names: HashMap<BlockHash, (BlockId, Content)>,
    /// In the order of their release.
    cached: VecDeque<BlockId>,
    /// When each was released, in releases, and how often it was found since it was bound.
    ranks: BTreeMap<BlockId, (u32, u32)>,
    releases: u32,
    versions: BTreeMap<BlockId, u32>,
    caching: bool,
}

/// The pool, the model, and what a user of the pool holds.
struct History {
    pool: BlockPool,
    model: Model,
    credits: Vec<Reservation>,
    blocks: Vec<BlockHandle>,
    /// Names as a reader of the events knows them.
    mirror: BTreeSet<BlockHash>,
    given_out: Vec<BlockRef>,
}

// === impl Model ===

impl Model {
    fn available(&self, reserved: u32) -> u32 {
        BLOCKS - self.owners.len() as u32 - reserved
    }

    fn name_of(&self, block: BlockId) -> Option<Content> {
        self.names.values().find(|(holder, _)| *holder == block).map(|(_, content)| *content)
    }

    fn forget(&mut self, block: BlockId) {
        self.names.retain(|_, (holder, _)| *holder != block);
    }

    fn retire(&mut self, block: BlockId) {
        self.forget(block);
        *self.versions.entry(block).or_default() += 1;
    }

    /// The block that binding should give: any free one, else the oldest cached one.
    fn bound(&mut self, block: BlockId) {
        assert!(!self.owners.contains_key(&block), "{block} handed out twice");
        let free = BLOCKS as usize - self.owners.len() - self.cached.len();
        if free > 0 {
            assert!(!self.cached.contains(&block), "{block} evicted while others are free");
        } else {
            assert_eq!(self.least(), Some(block), "not what is worth least");
            self.cached.retain(|other| *other != block);
            self.retire(block);
        }
        self.ranks.insert(block, (self.releases, 0));
        self.owners.insert(block, 1);
    }

    /// Each time that a block was found counts like a quarter of the pool released since; three count.
    fn least(&self) -> Option<BlockId> {
        let worth = |block: &BlockId| {
            let (released, found) = self.ranks[block];
            (released + found * (BLOCKS / 4), found)
        };
        self.cached.iter().copied().min_by_key(worth)
    }

    fn released(&mut self, block: BlockId) {
        let owners = self.owners.get_mut(&block).expect("owned");
        *owners -= 1;
        if *owners == 0 {
            self.owners.remove(&block);
            match self.name_of(block) {
                Some(_) => {
                    self.releases += 1;
                    self.ranks.get_mut(&block).expect("bound").0 = self.releases;
                    self.cached.push_back(block);
                }
                None => self.retire(block),
            }
        }
    }

    fn sealed(&mut self, block: BlockId, content: Content) -> SealOutcome {
        match self.names.get(&content.committed.hash) {
            _ if !self.caching => SealOutcome::CachingOff,
            Some((holder, held)) if *held == content => SealOutcome::Duplicate(*holder),
            Some((holder, _)) => SealOutcome::Collision(*holder),
            None => {
                self.names.insert(content.committed.hash, (block, content));
                SealOutcome::Published
            }
        }
    }

    fn matched(&mut self, wanted: &[Content], reserved: u32) -> Vec<BlockId> {
        let mut found = Vec::new();
        let mut parent = None;
        for content in wanted {
            let depth = found.len() as u32;
            let committed = CommittedBlock { parent, depth, ..content.committed };
            let want = Content { committed, ..*content };
            match self.names.get(&content.committed.hash) {
                Some((block, held)) if *held == want => {
                    let cached = self.cached.contains(block);
                    if cached && self.available(reserved) == 0 {
                        break;
                    }
                    self.cached.retain(|other| other != block);
                    *self.owners.entry(*block).or_default() += 1;
                    let times = &mut self.ranks.get_mut(block).expect("bound").1;
                    *times = (*times + 1).min(3);
                    found.push(*block);
                }
                _ => break,
            }
            parent = Some(content.committed.hash);
        }
        found
    }

    fn caching(&mut self, caching: bool) {
        self.caching = caching;
        if !caching {
            for block in std::mem::take(&mut self.cached) {
                self.retire(block);
            }
            self.names.clear();
        }
    }
}

// === impl History ===

impl History {
    fn new() -> Self {
        let pool = BlockPool::new(BLOCKS, TOKENS);
        assert!(pool.snapshot().blocks.is_empty());
        Self {
            pool,
            model: Model { caching: true, ..Model::default() },
            credits: Vec::new(),
            blocks: Vec::new(),
            mirror: BTreeSet::new(),
            given_out: Vec::new(),
        }
    }

    fn reserved(&self) -> u32 {
        self.credits.iter().map(Reservation::remaining).sum()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Reserve(blocks) => self.reserve(blocks),
            Step::Grow(at, blocks) => self.grow(at, blocks),
            Step::Split(at, blocks) => {
                if let Some(credits) = pick(&mut self.credits, at) {
                    let part = credits.split(blocks.min(credits.remaining()));
                    self.credits.push(part);
                }
            }
            Step::Bind(at) => self.bind(at),
            Step::Cancel(at) => drop(take(&mut self.credits, at)),
            Step::Share(at) => {
                if let Some(block) = pick(&mut self.blocks, at).cloned() {
                    *self.model.owners.get_mut(&block.id()).expect("owned") += 1;
                    self.blocks.push(block);
                }
            }
            Step::Release(at) => {
                if let Some(block) = take(&mut self.blocks, at) {
                    self.model.released(block.id());
                }
            }
            Step::Seal(at, content) => self.seal(at, content),
            Step::Unseal(at) => self.unseal(at),
            Step::Match(wanted) => self.match_prefix(&wanted),
            Step::Caching(caching) => {
                self.pool.set_caching(caching);
                self.model.caching(caching);
            }
        }
    }

    fn reserve(&mut self, blocks: u32) {
        let free_blocks = self.model.available(self.reserved());
        match self.pool.reserve(blocks) {
            Ok(credits) => {
                assert!(blocks <= free_blocks);
                self.credits.push(credits);
            }
            Err(refusal) => {
                assert_eq!(refusal, NoCapacity { need_blocks: blocks, free_blocks });
                assert!(blocks > free_blocks);
            }
        }
    }

    fn grow(&mut self, at: usize, blocks: u32) {
        let fits = blocks <= self.model.available(self.reserved());
        if let Some(credits) = pick(&mut self.credits, at) {
            let before = credits.remaining();
            assert_eq!(credits.grow(blocks).is_ok(), fits);
            assert_eq!(credits.remaining(), before + if fits { blocks } else { 0 });
        }
    }

    fn bind(&mut self, at: usize) {
        let Some(credits) = pick(&mut self.credits, at) else { return };
        let before = credits.remaining();
        let block = credits.bind();
        assert_eq!(block.is_some(), before > 0);
        assert_eq!(credits.remaining(), before.saturating_sub(1));
        if let Some(block) = block {
            self.model.bound(block.id());
            self.given_out.push(block.reference());
            self.blocks.push(block);
        }
    }

    fn seal(&mut self, at: usize, content: Content) {
        let Some(block) = pick(&mut self.blocks, at) else { return };
        // Renaming a published block is a bug that has its own test.
        let content = self.model.name_of(block.id()).unwrap_or(content);
        let sealed = block.seal(content.committed, &content.tokens);
        assert_eq!(sealed, self.model.sealed(block.id(), content));
    }

    fn unseal(&mut self, at: usize) {
        let Some(block) = pick(&mut self.blocks, at) else { return };
        assert_eq!(block.unseal(), self.model.name_of(block.id()).is_some());
        self.model.forget(block.id());
    }

    fn match_prefix(&mut self, wanted: &[Content]) {
        let hashes: Vec<_> = wanted.iter().map(|content| content.committed.hash).collect();
        let tokens: Vec<_> = wanted.iter().flat_map(|content| content.tokens).collect();
        let found = self.pool.match_prefix(&hashes, &tokens);
        let ids: Vec<_> = found.iter().map(BlockHandle::id).collect();
        assert_eq!(ids, self.model.matched(wanted, self.reserved()));
        self.blocks.extend(found);
    }

    fn check(&mut self) {
        assert_eq!(self.pool.audit(), Ok(()));
        let (active, cached) = (self.model.owners.len() as u32, self.model.cached.len() as u32);
        let free = BLOCKS - active - cached;
        let want = BlockCounts { free, reserved: self.reserved(), active, cached };
        assert_eq!(self.pool.counts(), want);
        for block in &self.blocks {
            let owners = self.model.owners[&block.id()];
            assert_eq!(block.is_shared(), owners > 1);
            assert_eq!(
                block.is_writable(),
                owners == 1 && self.model.name_of(block.id()).is_none()
            );
        }
        for reference in &self.given_out {
            let version = self.model.versions.get(&reference.block).copied().unwrap_or(0);
            assert_eq!(self.pool.is_current(*reference), reference.version.0 == version);
        }
        assert_eq!(self.pool.orphans(self.blocks.iter().map(BlockHandle::id)), 0);
        self.read_events();
    }

    fn read_events(&mut self) {
        let BlockEvents { events, needs_snapshot } = self.pool.drain_events(usize::MAX);
        assert!(!needs_snapshot);
        for event in events {
            let news = match event {
                BlockEvent::Committed { block, .. } => self.mirror.insert(block.hash),
                BlockEvent::Evicted { hash, .. } => self.mirror.remove(&hash),
            };
            assert!(news, "{event:?} says nothing new");
        }
        let names: BTreeSet<_> = self.model.names.keys().copied().collect();
        assert_eq!(self.mirror, names);
        assert_eq!(self.pool.snapshot().blocks.len(), names.len());
    }
}

fn pick<T>(items: &mut [T], at: usize) -> Option<&mut T> {
    let count = items.len().max(1);
    items.get_mut(at % count)
}

fn take<T>(items: &mut Vec<T>, at: usize) -> Option<T> {
    (!items.is_empty()).then(|| items.swap_remove(at % items.len()))
}

/// Names 0..4; a name's parent is mostly the one before it and its tokens mostly its own number, so
/// that chains, duplicates and collisions all occur.
fn content() -> impl Strategy<Value = Content> {
    (0_u32..4, prop::bool::weighted(0.85), prop::bool::weighted(0.85)).prop_map(
        |(name, in_order, honest)| Content {
            committed: CommittedBlock {
                hash: BlockHash(name.into()),
                parent: name
                    .checked_sub(1)
                    .filter(|_| in_order)
                    .map(|parent| BlockHash(parent.into())),
                depth: if in_order { name } else { 0 },
            },
            tokens: [name, if honest { 0 } else { 1 }],
        },
    )
}

fn wanted() -> impl Strategy<Value = Vec<Content>> {
    let chain = |length: usize| {
        (0..length as u32).map(|name| Content {
            committed: CommittedBlock {
                hash: BlockHash(name.into()),
                parent: name.checked_sub(1).map(|parent| BlockHash(parent.into())),
                depth: name,
            },
            tokens: [name, 0],
        })
    };
    prop_oneof![
        3 => (1_usize..5).prop_map(move |length| chain(length).collect()),
        1 => prop::collection::vec(content(), 1..4),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..8;
    prop_oneof![
        3 => (0_u32..=BLOCKS + 1).prop_map(Step::Reserve),
        1 => (at(), 0_u32..3).prop_map(|(at, blocks)| Step::Grow(at, blocks)),
        1 => (at(), 0_u32..3).prop_map(|(at, blocks)| Step::Split(at, blocks)),
        6 => at().prop_map(Step::Bind),
        1 => at().prop_map(Step::Cancel),
        1 => at().prop_map(Step::Share),
        5 => at().prop_map(Step::Release),
        6 => (at(), content()).prop_map(|(at, content)| Step::Seal(at, content)),
        1 => at().prop_map(Step::Unseal),
        3 => wanted().prop_map(Step::Match),
        1 => prop::bool::weighted(0.8).prop_map(Step::Caching),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_history_agrees_with_the_model(steps in prop::collection::vec(step(), 1..120)) {
        let mut history = History::new();
        for step in steps {
            history.step(step);
            history.check();
        }
        history.credits.clear();
        history.blocks.clear();
        let counts = history.pool.counts();
        prop_assert_eq!((counts.active, counts.reserved, counts.available()), (0, 0, BLOCKS));
        prop_assert_eq!(history.pool.audit(), Ok(()));
    }
}
