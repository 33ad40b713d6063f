use super::*;
use crate::{ANCHOR_BLOCKS, Anchor};

/// Publishes a prompt of some anchors' length, lets go of it, and finds its first `found` blocks each time.
fn find(pool: &BlockPool, tokens: std::ops::Range<TokenId>, found: &[usize]) -> Vec<BlockHash> {
    let (hashes, tokens) = prompt(tokens);
    drop(fill(pool, &hashes, &tokens));
    for blocks in found {
        assert_eq!(pool.match_prefix(&hashes[..*blocks], &tokens).len(), *blocks);
    }
    hashes
}

#[test]
fn hot_anchors_are_in_the_order_in_which_they_are_found() {
    let pool = BlockPool::new(200, BLOCK_TOKENS);
    let anchor = ANCHOR_BLOCKS as usize;
    let often = find(&pool, 0..200, &[50, 50, 20]);
    let once = find(&pool, 1_000..1_140, &[35]);
    let _never = find(&pool, 2_000..2_140, &[]);
    let want = [(&often, 1), (&often, 2), (&often, 3), (&once, 1), (&once, 2)];
    let want = want.map(|(hashes, number)| Anchor {
        blocks: ANCHOR_BLOCKS * number as u32,
        hash: hashes[anchor * number - 1],
    });
    assert_eq!(pool.hot_anchors(9), want);
    assert_eq!(pool.hot_anchors(3), want[..3]);
    assert_eq!(Anchor::along(&often).collect::<Vec<_>>(), want[..3]);
}

#[test]
fn what_is_evicted_is_hot_no_more() {
    let pool = BlockPool::new(40, BLOCK_TOKENS);
    find(&pool, 0..70, &[17, 17]);
    assert_eq!(pool.hot_anchors(9).len(), 1);
    find(&pool, 1_000..1_160, &[]);
    assert_eq!(pool.hot_anchors(9), []);
    // The same once more: how often it was found before counts no more.
    find(&pool, 0..70, &[]);
    assert_eq!(pool.hot_anchors(9), []);
}
