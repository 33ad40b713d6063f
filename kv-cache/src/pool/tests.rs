use std::thread;

use super::events::EVENTS_MAX;
use super::*;
use crate::{BlockTable, ChainHasher, Tier};

mod hot;
mod model;
mod tiers;

const BLOCK_TOKENS: u32 = 4;

fn bind(pool: &BlockPool) -> BlockHandle {
    pool.reserve(1).expect("room").bind().expect("one credit")
}

/// Fills and publishes the blocks of `tokens`, in order.
fn fill(pool: &BlockPool, hashes: &[BlockHash], tokens: &[TokenId]) -> Vec<BlockHandle> {
    let blocks = hashes.iter().zip(tokens.chunks_exact(BLOCK_TOKENS as usize)).enumerate();
    blocks
        .map(|(depth, (_, tokens))| {
            let block = bind(pool);
            assert_eq!(block.seal(named(hashes, depth), tokens), SealOutcome::Published);
            block
        })
        .collect()
}

/// The block at `depth` of a sequence whose blocks have these names.
fn named(hashes: &[BlockHash], depth: usize) -> CommittedBlock {
    let parent = depth.checked_sub(1).map(|before| hashes[before]);
    CommittedBlock { hash: hashes[depth], parent, depth: depth as u32 }
}

fn first(hash: BlockHash) -> CommittedBlock {
    CommittedBlock { hash, parent: None, depth: 0 }
}

fn prompt(tokens: std::ops::Range<TokenId>) -> (Vec<BlockHash>, Vec<TokenId>) {
    let tokens: Vec<_> = tokens.collect();
    (ChainHasher::new("model", b"").hash_blocks(None, &tokens, BLOCK_TOKENS), tokens)
}

#[test]
fn dropping_everything_returns_every_block() {
    let pool = BlockPool::new(4, BLOCK_TOKENS);
    let mut credits = pool.reserve(3).expect("room");
    let block = credits.bind().expect("a credit");
    assert_eq!(pool.counts(), BlockCounts { free: 3, reserved: 2, active: 1, cached: 0 });
    let copy = block.clone();
    assert!(block.is_shared());
    drop((credits, block));
    assert!(!copy.is_shared());
    drop(copy);
    assert_eq!(pool.counts(), BlockCounts { free: 4, reserved: 0, active: 0, cached: 0 });
}

#[test]
fn blocks_bound_together_are_in_order_however_they_came_free() {
    let pool = BlockPool::new(6, BLOCK_TOKENS);
    let ids = |blocks: &[BlockHandle]| blocks.iter().map(|it| it.id().0).collect::<Vec<_>>();
    let mut credits = pool.reserve(6).expect("room");
    let mut blocks = credits.bind_many(6).expect("six credits");
    assert_eq!(ids(&blocks), [0, 1, 2, 3, 4, 5]);
    // As a prompt's are: from the last on.
    while let Some(block) = blocks.pop() {
        drop(block);
    }
    let mut credits = pool.reserve(5).expect("room");
    assert!(credits.bind_many(6).is_none());
    assert_eq!(credits.remaining(), 5, "nothing was bound");
    let blocks = credits.bind_many(4).expect("five credits");
    assert!(blocks.windows(2).all(|pair| pair[1].id().0 == pair[0].id().0 + 1), "{blocks:?}");
    assert_eq!(pool.counts(), BlockCounts { free: 2, reserved: 1, active: 4, cached: 0 });
}

#[test]
fn a_reservation_is_all_or_nothing_and_says_what_is_missing() {
    let pool = BlockPool::new(4, BLOCK_TOKENS);
    let mut first = pool.reserve(3).expect("room");
    let refusal = NoCapacity { need_blocks: 2, free_blocks: 1 };
    assert_eq!(pool.reserve(2).unwrap_err(), refusal);
    assert_eq!(first.grow(2), Err(refusal));
    assert_eq!(first.grow(1), Ok(()));
    let part = first.split(3);
    assert_eq!((first.remaining(), part.remaining(), pool.counts().reserved), (1, 3, 4));
    drop(part);
    assert_eq!(pool.counts().available(), 3);
}

#[test]
#[should_panic(expected = "2 credits of 1 split off")]
fn splitting_off_more_than_there_is_is_a_bug() {
    drop(BlockPool::new(4, BLOCK_TOKENS).reserve(1).expect("room").split(2));
}

#[test]
fn an_evicted_block_makes_its_references_stale_and_a_cached_one_does_not() {
    let pool = BlockPool::new(1, BLOCK_TOKENS);
    let (hashes, tokens) = prompt(0..4);
    let block = fill(&pool, &hashes, &tokens).remove(0);
    let reference = block.reference();
    drop(block);
    assert!(pool.is_current(reference));

    let next = bind(&pool);
    assert_eq!(next.id(), reference.block);
    assert!(!pool.is_current(reference) && pool.is_current(next.reference()));
}

#[test]
fn the_least_recently_released_block_is_evicted_first_and_a_match_renews() {
    let pool = BlockPool::new(3, BLOCK_TOKENS);
    let prompts = [prompt(0..4), prompt(10..14), prompt(20..24)];
    let found = |index: usize| pool.match_prefix(&prompts[index].0, &prompts[index].1);
    let blocks: Vec<_> =
        prompts.iter().flat_map(|(hashes, tokens)| fill(&pool, hashes, tokens)).collect();
    drop(blocks);
    drop(found(0));

    let _held = [bind(&pool), bind(&pool)];
    assert_eq!([0, 1, 2].map(|index| found(index).len()), [1, 0, 0]);
}

#[test]
fn a_match_never_takes_a_block_that_is_promised() {
    let pool = BlockPool::new(3, BLOCK_TOKENS);
    let (hashes, tokens) = prompt(0..12);
    drop(fill(&pool, &hashes, &tokens));
    let mut promised = pool.reserve(2).expect("room");
    assert_eq!(pool.match_prefix(&hashes, &tokens).len(), 1);
    assert_eq!([promised.bind(), promised.bind()].iter().flatten().count(), 2);
}

#[test]
fn active_blocks_are_found_at_no_cost() {
    let pool = BlockPool::new(3, BLOCK_TOKENS);
    let (hashes, tokens) = prompt(0..12);
    let blocks = fill(&pool, &hashes, &tokens);
    let found = pool.match_prefix(&hashes, &tokens);
    assert_eq!(found.len(), 3);
    assert_eq!(pool.counts().active, 3);
    assert!(blocks[0].is_shared() && !blocks[0].is_writable());
}

#[test]
fn a_collision_is_a_miss() {
    let pool = BlockPool::new(3, BLOCK_TOKENS);
    let (name, mine, other) = (BlockHash(7), [1, 2, 3, 4], [1, 2, 3, 5]);
    let holder = bind(&pool);
    assert_eq!(holder.seal(first(name), &mine), SealOutcome::Published);
    let late = bind(&pool);
    assert_eq!(late.seal(first(name), &mine), SealOutcome::Duplicate(holder.id()));
    assert_eq!(late.seal(first(name), &other), SealOutcome::Collision(holder.id()));
    let hung_elsewhere = CommittedBlock { parent: Some(name), ..first(name) };
    assert_eq!(late.seal(hung_elsewhere, &mine), SealOutcome::Collision(holder.id()));
    assert!(late.is_writable());

    assert_eq!(pool.match_prefix(&[name], &mine).len(), 1);
    assert!(pool.match_prefix(&[name], &other).is_empty());
    assert!(pool.match_prefix(&[name], &mine[..3]).is_empty());
}

#[test]
#[should_panic(expected = "b0 is sealed again as another")]
fn renaming_a_published_block_is_a_bug() {
    let block = bind(&BlockPool::new(1, BLOCK_TOKENS));
    block.seal(first(BlockHash(1)), &[1; 4]);
    block.seal(first(BlockHash(2)), &[1; 4]);
}

#[test]
fn without_a_cache_nothing_is_found_and_released_blocks_are_free() {
    let pool = BlockPool::new(4, BLOCK_TOKENS);
    let (hashes, tokens) = prompt(0..8);
    let mut blocks = fill(&pool, &hashes, &tokens);
    drop(blocks.pop());
    assert_eq!(pool.counts().cached, 1);

    pool.set_caching(false);
    assert_eq!(pool.counts(), BlockCounts { free: 3, reserved: 0, active: 1, cached: 0 });
    assert!(pool.match_prefix(&hashes, &tokens).is_empty() && pool.snapshot().blocks.is_empty());
    assert_eq!(blocks[0].seal(first(hashes[0]), &tokens[..4]), SealOutcome::CachingOff);
    drop(blocks);
    assert_eq!((pool.counts().free, pool.audit()), (4, Ok(())));
}

#[test]
fn blocks_that_no_live_owner_names_are_orphans() {
    let pool = BlockPool::new(4, BLOCK_TOKENS);
    let blocks = [bind(&pool), bind(&pool)];
    assert_eq!(pool.orphans(blocks.iter().map(BlockHandle::id)), 0);
    assert_eq!(pool.orphans([blocks[1].id()]), 1);
    assert_eq!(pool.ownerless([blocks[1].id()]), [blocks[0].reference()]);
}

#[test]
fn events_tell_what_can_be_found_in_order() {
    let pool = BlockPool::new(1, BLOCK_TOKENS);
    let (hashes, tokens) = prompt(0..4);
    assert!(pool.snapshot().blocks.is_empty());
    drop(fill(&pool, &hashes, &tokens));
    drop(bind(&pool));
    let tier = Tier::Device;
    let committed = BlockEvent::Committed { block: first(hashes[0]), tier };
    assert_eq!(pool.drain_events(1).events, [committed]);
    assert_eq!(pool.drain_events(9).events, [BlockEvent::Evicted { hash: hashes[0], tier }]);
    assert_eq!(pool.drain_events(9), BlockEvents::default());
}

#[test]
fn no_event_is_kept_before_somebody_follows() {
    let pool = BlockPool::new(1, BLOCK_TOKENS);
    let (hashes, tokens) = prompt(0..4);
    drop(fill(&pool, &hashes, &tokens));
    assert_eq!(pool.drain_events(9), BlockEvents { events: vec![], needs_snapshot: true });
    assert_eq!(pool.snapshot().blocks, [(first(hashes[0]), Tier::Device)]);
    assert_eq!(pool.drain_events(9), BlockEvents::default());
}

#[test]
fn lost_events_are_admitted_until_a_snapshot_is_taken() {
    let pool = BlockPool::new(1, BLOCK_TOKENS);
    let churn = |count: usize| {
        for number in 0..count {
            bind(&pool).seal(first(BlockHash(number as u128)), &[1; 4]);
        }
    };
    let lost = BlockEvents { events: vec![], needs_snapshot: true };
    assert!(pool.snapshot().blocks.is_empty());
    churn(EVENTS_MAX / 2 + 2);
    for _ in 0..2 {
        assert_eq!(pool.drain_events(9), lost);
    }
    assert_eq!(pool.snapshot().blocks.len(), 1);
    churn(1);
    assert_eq!(pool.drain_events(9).events.len(), 2);
    churn(1);
    assert_eq!(pool.snapshot().before.events.len(), 2, "no other follower misses them");
    assert_eq!(pool.drain_events(9), BlockEvents::default());
}

#[test]
fn threads_that_race_leave_a_whole_pool_behind() {
    // Miri takes its time, and many schedules.
    let rounds = if cfg!(miri) { 5 } else { 500 };
    let pool = BlockPool::new(64, BLOCK_TOKENS);
    let (hashes, tokens) = prompt(0..64);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..rounds {
                    let found = pool.match_prefix(&hashes, &tokens[..round % 64]);
                    let Ok(mut credits) = pool.reserve(16 - found.len() as u32) else { continue };
                    for index in found.len()..hashes.len() {
                        let block = credits.bind().expect("a credit for each");
                        block.seal(named(&hashes, index), &tokens[index * 4..][..4]);
                    }
                }
            });
        }
    });
    let counts = pool.counts();
    assert_eq!((counts.active, counts.reserved, counts.total()), (0, 0, 64));
    assert_eq!(pool.audit(), Ok(()));
}

#[test]
fn a_prefix_that_is_found_again_at_once_is_evicted_from_its_end() {
    // A prompt is asked three times, and others come until hardly any of it is left.
    let pool = BlockPool::new(40, BLOCK_TOKENS);
    let ask = |tokens: std::ops::Range<TokenId>| {
        let (hashes, tokens) = prompt(tokens);
        let mut table = BlockTable::from_prefix(BLOCK_TOKENS, pool.match_prefix(&hashes, &tokens));
        let found = table.blocks().len();
        for depth in found..hashes.len() {
            let block = bind(&pool);
            block.seal(named(&hashes, depth), &tokens[depth * 4..][..4]);
            table.push(block);
        }
        found
    };
    let found = [(); 3].map(|()| ask(0..64));
    assert_eq!(found, [0, 16, 16]);
    for other in 1..5 {
        ask(other * 1000..other * 1000 + 48);
        let (hashes, _) = prompt(0..64);
        let there: Vec<_> = pool.snapshot().blocks.iter().map(|(block, _)| block.hash).collect();
        let left = hashes.iter().take_while(|hash| there.contains(hash)).count();
        assert!(hashes[left..].iter().all(|hash| !there.contains(hash)), "a hole after {left}");
    }
    ask(0..64);
    assert_eq!(ask(0..64), 16, "what was just computed is there");
}
