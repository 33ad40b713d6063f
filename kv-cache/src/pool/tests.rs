use super::*;
use crate::ChainHasher;

const BLOCK_TOKENS: u32 = 4;

fn bind(pool: &BlockPool) -> BlockHandle {
    pool.reserve(1).expect("room").bind().expect("one credit")
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
