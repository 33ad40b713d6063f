//! What naming and owning a block cost, each beside its floor.
//!
//! - A name: one blake3 of 81 bytes, which is two compressions whatever surrounds them.
//! - A block's life (reserve, bind, release): three locks that nobody else wants.
//! - A matched block (found, pinned, released): the comparison of 16 tokens and one lock for its
//!   release; the lock of the lookup is shared by all.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kv_cache::{BlockHandle, BlockPool, BlockTable, ChainHasher, CommittedBlock};
use parking_lot::Mutex;

const BLOCK_TOKENS: u32 = 16;
const PROMPT_BLOCKS: u32 = 256;

fn names(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("name one block");
    let hasher = ChainHasher::new("model", b"tenant");
    let tokens: Vec<u32> = (0..BLOCK_TOKENS).collect();
    let parent = Some(hasher.extend(None, &tokens));
    group.bench_function("ours", |bench| {
        bench.iter(|| hasher.extend(black_box(parent), black_box(&tokens)));
    });
    let message = [7_u8; 17 + 4 * BLOCK_TOKENS as usize];
    group.bench_function("floor", |bench| {
        bench.iter(|| blake3::keyed_hash(black_box(&[1; 32]), black_box(&message)));
    });
}

fn lives(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reserve, bind, release one block");
    let pool = BlockPool::new(4096, BLOCK_TOKENS);
    group.bench_function("ours", |bench| {
        bench.iter(|| pool.reserve(1).expect("room").bind());
    });
    let lock = Mutex::new(0_u32);
    group.bench_function("floor", |bench| {
        bench.iter(|| (0..3).for_each(|_| *black_box(&lock).lock() += 1));
    });
}

fn matches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match and release a prompt of 256 blocks");
    group.throughput(Throughput::Elements(PROMPT_BLOCKS.into()));
    let pool = BlockPool::new(4096, BLOCK_TOKENS);
    let tokens: Vec<u32> = (0..PROMPT_BLOCKS * BLOCK_TOKENS).collect();
    let hashes = ChainHasher::new("model", b"").hash_blocks(None, &tokens, BLOCK_TOKENS);
    let mut credits = pool.reserve(PROMPT_BLOCKS).expect("room");
    let blocks: Vec<BlockHandle> = std::iter::from_fn(|| credits.bind()).collect();
    for (index, block) in blocks.iter().enumerate() {
        let parent = index.checked_sub(1).map(|parent| hashes[parent]);
        let named = CommittedBlock { hash: hashes[index], parent, depth: index as u32 };
        block.seal(named, &tokens[index * BLOCK_TOKENS as usize..][..16]);
    }
    drop(BlockTable::from_prefix(BLOCK_TOKENS, blocks));
    group.bench_function("cached", |bench| {
        bench.iter(|| {
            let found = pool.match_prefix(black_box(&hashes), black_box(&tokens));
            BlockTable::from_prefix(BLOCK_TOKENS, found)
        });
    });
}

criterion_group!(benches, names, lives, matches);
criterion_main!(benches);
