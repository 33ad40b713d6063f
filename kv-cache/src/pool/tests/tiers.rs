//! Blocks that go down to the tier below, and are found there.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// A pool over a tier, and a prompt of `blocks` blocks that is cached in it.
fn cached(total: u32, below: u32, blocks: u32) -> (BlockPool, BlockPool, Prompt) {
    let pool = BlockPool::new(total, BLOCK_TOKENS);
    let tier = pool.add_tier(Tier::Host, below);
    let prompt = Prompt::new(0, blocks);
    drop_from_the_end(fill(&pool, &prompt.hashes, &prompt.tokens));
    (pool, tier, prompt)
}

struct Prompt {
    hashes: Vec<BlockHash>,
    tokens: Vec<TokenId>,
}

// === impl Prompt ===

impl Prompt {
    fn new(first: TokenId, blocks: u32) -> Self {
        let (hashes, tokens) = prompt(first..first + blocks * BLOCK_TOKENS);
        Self { hashes, tokens }
    }

    fn found_from(&self, first: usize, pool: &BlockPool) -> usize {
        pool.match_run(first, &self.hashes, &self.tokens).len()
    }
}

/// As a table does.
fn drop_from_the_end(mut blocks: Vec<BlockHandle>) {
    while blocks.pop().is_some() {}
}

fn copy_to(tier: &BlockPool) -> BlockHandle {
    bind(tier)
}

/// Copies whatever is to be copied. Returns how many that were.
fn save_all(pool: &BlockPool, tier: &BlockPool) -> usize {
    let unsaved = pool.unsaved(usize::MAX);
    unsaved.iter().filter(|unsaved| pool.save(unsaved, &copy_to(tier))).count()
}

#[test]
fn the_oldest_go_down_until_half_of_the_pool_is_safe() {
    let (pool, tier, prompt) = cached(8, 8, 7);
    let unsaved = pool.unsaved(2);
    let depths: Vec<_> = unsaved.iter().map(|it| it.block.depth).collect();
    assert_eq!(depths, [6, 5], "leaves first, and no more than asked for");
    assert_eq!(save_all(&pool, &tier), 3, "one is free, and three more make half");
    assert_eq!(pool.unsaved(8), [], "they need no other copy");
    assert_eq!(prompt.found_from(4, &tier), 3);
    assert_eq!(prompt.found_from(0, &pool), 7, "nothing has left the pool");
    assert_eq!((pool.audit(), tier.audit()), (Ok(()), Ok(())));
}

#[test]
fn what_is_saved_is_evicted_first_and_at_no_loss() {
    let (pool, tier, first) = cached(4, 4, 4);
    assert_eq!(save_all(&pool, &tier), 2);
    let second = Prompt::new(100, 2);
    drop_from_the_end(fill(&pool, &second.hashes, &second.tokens));
    assert_eq!(pool.evictions(), Evictions { all: 2, lost: 0 });
    assert_eq!((first.found_from(0, &pool), first.found_from(2, &tier)), (2, 2));
    let third = Prompt::new(200, 1);
    drop_from_the_end(fill(&pool, &third.hashes, &third.tokens));
    assert_eq!(pool.evictions(), Evictions { all: 3, lost: 1 }, "nobody had copied it");
}

#[test]
fn a_block_that_is_used_again_is_new_again_and_needs_no_second_copy() {
    let (pool, tier, prompt) = cached(4, 4, 4);
    save_all(&pool, &tier);
    drop_from_the_end(pool.match_prefix(&prompt.hashes, &prompt.tokens));
    assert_eq!(save_all(&pool, &tier), 0, "they have their copies");
    assert_eq!(tier.counts().cached, 2);
    assert_eq!(pool.audit(), Ok(()));
}

#[test]
fn a_copy_of_a_block_that_went_meanwhile_is_none() {
    let (pool, tier, prompt) = cached(2, 2, 2);
    let unsaved = pool.unsaved(1).remove(0);
    let copy = copy_to(&tier);
    let other = Prompt::new(50, 1);
    drop_from_the_end(fill(&pool, &other.hashes, &other.tokens));
    assert!(!pool.has(&unsaved) && !pool.save(&unsaved, &copy), "another's bytes may be in it");
    drop(copy);
    assert_eq!((prompt.found_from(1, &tier), tier.counts().free), (0, 2));
}

#[test]
fn a_block_without_its_name_has_no_copies() {
    let (pool, tier, prompt) = cached(2, 2, 2);
    let unsaved = pool.unsaved(1).remove(0);
    assert!(pool.has(&unsaved) && pool.save(&unsaved, &copy_to(&tier)));
    assert_eq!(tier.unnamed().len(), 1);
    let held = pool.match_prefix(&prompt.hashes, &prompt.tokens);
    assert!(held[1].unseal());
    assert_eq!((prompt.found_from(1, &tier), tier.counts().free), (0, 2));
    assert!(!pool.save(&unsaved, &copy_to(&tier)), "nor gets any");
    assert_eq!(tier.unnamed().len(), 2);
    assert_eq!(tier.audit(), Ok(()));
}

#[test]
fn events_and_snapshots_say_where_a_block_is() {
    let (pool, tier, prompt) = cached(2, 1, 2);
    assert_eq!(pool.snapshot().blocks.len(), 2);
    save_all(&pool, &tier);
    let leaf = named(&prompt.hashes, 1);
    let down = BlockEvent::Committed { block: leaf, tier: Tier::Host };
    assert_eq!(pool.drain_events(9).events, [down]);
    assert!(pool.snapshot().blocks.contains(&(leaf, Tier::Host)));
    let other = Prompt::new(70, 2);
    drop_from_the_end(fill(&pool, &other.hashes, &other.tokens));
    save_all(&pool, &tier);
    let gone = BlockEvent::Evicted { hash: leaf.hash, tier: Tier::Host };
    assert!(pool.drain_events(9).events.contains(&gone), "the tier has room for one");
}

#[test]
fn a_tier_may_have_one_below_it() {
    let (pool, host, prompt) = cached(4, 2, 4);
    let disk = host.add_tier(Tier::Disk, 8);
    assert_eq!(save_all(&pool, &host), 2);
    assert_eq!(save_all(&host, &disk), 1, "half of two");
    assert_eq!(prompt.found_from(3, &disk), 1);
    assert_eq!(pool.snapshot().blocks.len(), 4 + 2 + 1);
    assert_eq!([pool.tier(), host.tier(), disk.tier()], Tier::ALL);
}

/// One step of a history; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Computes what isn't cached of a prompt, and keeps it.
    Compute(usize, usize),
    /// Ends one of those that are kept.
    End(usize),
    /// Begins to copy what is to be copied.
    Copy(usize),
    /// Ends all copies that were begun.
    Save,
    /// Looks a prompt up.
    Find(usize),
}

/// Pools and their memories, where a block's contents are its name.
struct History {
    pool: BlockPool,
    tier: BlockPool,
    memory: HashMap<BlockId, BlockHash>,
    below: HashMap<BlockId, BlockHash>,
    kept: Vec<Vec<BlockHandle>>,
    copies: Vec<(Unsaved, BlockHandle)>,
    mirror: HashSet<(BlockHash, Tier)>,
}

// === impl History ===

impl History {
    fn new() -> Self {
        let pool = BlockPool::new(8, BLOCK_TOKENS);
        let tier = pool.add_tier(Tier::Host, 5);
        assert!(pool.snapshot().blocks.is_empty());
        let (memory, below, kept) = Default::default();
        Self { pool, tier, memory, below, kept, copies: Vec::new(), mirror: HashSet::new() }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Compute(which, blocks) => self.compute(&some_prompt(which, blocks)),
            Step::End(at) if !self.kept.is_empty() => {
                let at = at % self.kept.len();
                drop_from_the_end(self.kept.swap_remove(at));
            }
            Step::End(_) => {}
            Step::Copy(max) => self.copy(max),
            Step::Save => self.save(),
            Step::Find(which) => self.find(&some_prompt(which, 4)),
        }
    }

    fn compute(&mut self, prompt: &Prompt) {
        let mut blocks = self.pool.match_prefix(&prompt.hashes, &prompt.tokens);
        let missing = prompt.hashes.len() - blocks.len();
        let Ok(mut credit) = self.pool.reserve(missing as u32) else { return };
        for depth in blocks.len()..prompt.hashes.len() {
            let block = credit.bind().expect("a credit");
            self.memory.insert(block.id(), prompt.hashes[depth]);
            let tokens = &prompt.tokens[depth * BLOCK_TOKENS as usize..][..BLOCK_TOKENS as usize];
            block.seal(named(&prompt.hashes, depth), tokens);
            blocks.push(block);
        }
        self.kept.push(blocks);
    }

    fn copy(&mut self, max: usize) {
        for unsaved in self.pool.unsaved(max) {
            let Ok(mut credit) = self.tier.reserve(1) else { return };
            let copy = credit.bind().expect("a credit");
            self.below.insert(copy.id(), self.memory[&unsaved.at.block]);
            self.copies.push((unsaved, copy));
        }
    }

    fn save(&mut self) {
        for (unsaved, copy) in self.copies.drain(..) {
            if self.pool.save(&unsaved, &copy) {
                assert_eq!(self.below[&copy.id()], unsaved.block.hash);
            }
        }
    }

    fn find(&self, prompt: &Prompt) {
        for (pool, memory) in [(&self.pool, &self.memory), (&self.tier, &self.below)] {
            for first in 0..prompt.hashes.len() {
                let found = pool.match_run(first, &prompt.hashes, &prompt.tokens);
                for (block, hash) in found.iter().zip(&prompt.hashes[first..]) {
                    assert_eq!(memory[&block.id()], *hash);
                }
            }
        }
    }

    fn check(&mut self) {
        assert_eq!((self.pool.audit(), self.tier.audit()), (Ok(()), Ok(())));
        for event in self.pool.drain_events(usize::MAX).events {
            let news = match event {
                BlockEvent::Committed { block, tier } => self.mirror.insert((block.hash, tier)),
                BlockEvent::Evicted { hash, tier } => self.mirror.remove(&(hash, tier)),
            };
            assert!(news, "{event:?} says nothing new");
        }
        let found = self.pool.snapshot().blocks.into_iter().map(|(it, tier)| (it.hash, tier));
        assert_eq!(found.collect::<HashSet<_>>(), self.mirror);
    }
}

/// Prompts of which some begin alike.
fn some_prompt(which: usize, blocks: usize) -> Prompt {
    let stem: Vec<TokenId> = (0..BLOCK_TOKENS).map(|at| at + which as u32 / 2).collect();
    let rest = (0..3 * BLOCK_TOKENS).map(|at| at + 100 * which as u32);
    let mut tokens: Vec<TokenId> = stem.into_iter().chain(rest).collect();
    tokens.truncate(blocks * BLOCK_TOKENS as usize);
    let hashes = ChainHasher::new("model", b"").hash_blocks(None, &tokens, BLOCK_TOKENS);
    Prompt { hashes, tokens }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..6_usize, 1..=4_usize).prop_map(|(which, blocks)| Step::Compute(which, blocks)),
        5 => (0..4_usize).prop_map(Step::End),
        3 => (1..4_usize).prop_map(Step::Copy),
        3 => Just(Step::Save),
        2 => (0..6_usize).prop_map(Step::Find),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_found_on_any_tier_is_what_was_computed(
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut history = History::new();
        for step in &steps {
            history.step(step);
            history.check();
        }
        history.copies.clear();
        history.kept.clear();
        let (pool, tier) = (history.pool.counts(), history.tier.counts());
        prop_assert_eq!((pool.active, pool.reserved, tier.active, tier.reserved), (0, 0, 0, 0));
    }
}
