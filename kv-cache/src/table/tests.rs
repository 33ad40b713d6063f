use super::*;
use crate::{BlockPool, ChainHasher, CommittedBlock};

const BLOCK_TOKENS: u32 = 4;

fn table(pool: &BlockPool, blocks: u32) -> BlockTable {
    let mut credits = pool.reserve(blocks).expect("room");
    let mut table = BlockTable::new(pool.block_tokens());
    while let Some(block) = credits.bind() {
        table.push(block);
    }
    table
}

#[test]
fn slots_follow_the_physical_blocks() {
    let pool = BlockPool::new(8, BLOCK_TOKENS);
    let skipped = table(&pool, 3);
    let table = table(&pool, 2);
    assert_eq!(table.ids(), [BlockId(3), BlockId(4)]);
    let slots: Vec<_> = (0..8).map(|position| table.slot(position)).collect();
    assert_eq!(slots, [12, 13, 14, 15, 16, 17, 18, 19]);
    drop(skipped);
}

#[test]
#[should_panic(expected = "9 tokens in 8 slots")]
fn more_tokens_than_slots_is_a_bug() {
    table(&BlockPool::new(2, BLOCK_TOKENS), 2).set_tokens(9);
}

#[test]
fn missing_blocks_count_from_the_filled_tokens() {
    let pool = BlockPool::new(8, BLOCK_TOKENS);
    let mut table = table(&pool, 2);
    table.advance(6);
    assert_eq!([0, 2, 3, 6, 7].map(|more| table.blocks_missing(more)), [0, 0, 1, 1, 2]);
}

#[test]
fn a_fork_shares_all_blocks_and_copies_only_a_partial_one() {
    let pool = BlockPool::new(8, BLOCK_TOKENS);
    let mut parent = table(&pool, 2);
    parent.set_tokens(6);
    assert!(!parent.needs_copy());

    let mut child = parent.fork();
    assert_eq!(pool.counts().active, 2);
    assert!(child.needs_copy() && parent.needs_copy());

    let copy = pool.reserve(1).expect("room").bind().expect("one credit");
    let old = child.replace_block(1, copy);
    assert_eq!(old.id(), parent.blocks()[1].id());
    drop(old);
    assert!(!child.needs_copy() && !parent.needs_copy());
    assert_eq!((pool.counts().active, child.tokens()), (3, 6));
}

#[test]
fn full_tables_need_no_copy_because_the_next_token_gets_a_new_block() {
    let pool = BlockPool::new(8, BLOCK_TOKENS);
    let mut parent = table(&pool, 2);
    parent.set_tokens(8);
    assert!(!parent.fork().needs_copy());
}

#[test]
fn a_published_block_is_not_written_again_after_truncation() {
    let pool = BlockPool::new(8, BLOCK_TOKENS);
    let mut table = table(&pool, 2);
    table.set_tokens(8);
    let tokens = [1, 2, 3, 4];
    let hash = ChainHasher::new("m", b"").extend(None, &tokens);
    table.blocks()[0].seal(CommittedBlock { hash, parent: None, depth: 0 }, &tokens);

    table.truncate(3);
    assert_eq!((table.tokens(), table.blocks().len(), table.needs_copy()), (3, 1, true));
    table.truncate(7);
    assert_eq!(table.tokens(), 3);
    table.truncate(0);
    assert_eq!((table.blocks().len(), table.needs_copy()), (0, false));
}

#[test]
fn a_prefix_is_evicted_after_what_continues_it() {
    let pool = BlockPool::new(3, BLOCK_TOKENS);
    let tokens: Vec<_> = (0..12).collect();
    let hashes = ChainHasher::new("m", b"").hash_blocks(None, &tokens, BLOCK_TOKENS);
    let mut sequence = table(&pool, 3);
    sequence.set_tokens(12);
    for (index, block) in sequence.blocks().iter().enumerate() {
        let parent = index.checked_sub(1).map(|parent| hashes[parent]);
        let named = CommittedBlock { hash: hashes[index], parent, depth: index as u32 };
        block.seal(named, &tokens[index * 4..][..4]);
    }
    drop(sequence);

    let mut others = Vec::new();
    for left in [3, 2, 1, 0] {
        let found = BlockTable::from_prefix(BLOCK_TOKENS, pool.match_prefix(&hashes, &tokens));
        assert_eq!((found.blocks().len(), found.tokens()), (left, left * 4));
        drop(found);
        if left > 0 {
            others.push(table(&pool, 1));
        }
    }
}
