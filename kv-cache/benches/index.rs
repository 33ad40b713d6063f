//! What a router's index costs at 10 million memberships of 1,000 workers, on one core.
//!
//! Each worker's cache is a ring of blocks: it commits new ones, evicts as many old ones, and says so in
//! batches. Criterion tells how fast such news are noted, alone and with a prompt of 512 blocks looked up for each
//! batch. What criterion has no words for is printed before: bytes a membership, and percentiles, of batches while the
//! index grew and of single lookups.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]
#![allow(clippy::print_stdout, reason = "a table of percentiles is what this is for")]

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kv_cache::{BlockEvent, BlockHash, CommittedBlock, Hits, Holder, PrefixIndex, Tier};

const WORKERS: u64 = 1_000;
const BLOCKS_EACH: u64 = 10_000;
const BATCH: u64 = 64;
const LOOKUPS: usize = 50_000;
/// Blocks that all prompts of the hot shape begin with, and the workers that have them.
const HOT: (u64, u64) = (128, 500);

/// Blocks of a prompt, and how many of them are new at most: ends anywhere, and next turns of a chat.
const PROMPTS: [[u64; 2]; 4] = [[16, 16], [512, 512], [8_400, 8_400], [8_400, 64]];

/// Workers, and what an index knows of them.
struct Fleet {
    index: PrefixIndex,
    rings: Vec<Ring>,
    dice: Dice,
    batches: Vec<Duration>,
}

/// A worker's cache: the blocks of `name` from `tail` to `head`.
struct Ring {
    holder: Holder,
    name: u64,
    tail: u64,
    head: u64,
}

/// Numbers that look random and are the same every time (splitmix64).
struct Dice(u64);

// === impl Dice ===

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn hash(ring: u64, at: u64) -> BlockHash {
    let low = mix(ring << 40 | at);
    BlockHash(u128::from(mix(low ^ 0x5851_f42d_4c95_7f2d)) << 64 | u128::from(low))
}

fn committed(hash: BlockHash) -> BlockEvent {
    let block = CommittedBlock { hash, parent: None, depth: 0 };
    BlockEvent::Committed { block, tier: Tier::Device }
}

// === impl Ring ===

impl Ring {
    fn commit(&mut self, count: u64) -> impl Iterator<Item = BlockEvent> + use<> {
        let (name, first) = (self.name, self.head);
        self.head += count;
        (first..self.head).map(move |at| committed(hash(name, at)))
    }

    fn evict(&mut self, count: u64) -> impl Iterator<Item = BlockEvent> + use<> {
        let (name, first) = (self.name, self.tail);
        self.tail += count;
        let evicted = move |at| BlockEvent::Evicted { hash: hash(name, at), tier: Tier::Device };
        (first..self.tail).map(evicted)
    }
}

// === impl Fleet ===

impl Fleet {
    /// Full caches, each block in those of `sharers` workers.
    fn new(sharers: u64) -> Self {
        let mut index = PrefixIndex::new(1 << 30);
        let ring = |worker| Ring {
            holder: index.join().expect("room"),
            name: worker / sharers,
            tail: 0,
            head: 0,
        };
        let rings = (0..WORKERS).map(ring).collect();
        let mut fleet = Self { index, rings, dice: Dice(12), batches: Vec::new() };
        for _ in 0..BLOCKS_EACH / BATCH {
            (0..fleet.rings.len()).for_each(|worker| fleet.tell(worker, BATCH, 0));
        }
        fleet
    }

    fn tell(&mut self, worker: usize, commits: u64, evictions: u64) {
        let ring = &mut self.rings[worker];
        let events: Vec<_> = ring.evict(evictions).chain(ring.commit(commits)).collect();
        let begin = Instant::now();
        self.index.apply(ring.holder, &events).expect("bytes");
        self.batches.push(begin.elapsed());
    }

    /// News of a full cache, from any worker.
    fn news(&mut self) -> (Holder, Vec<BlockEvent>) {
        let worker = self.dice.roll() % WORKERS;
        let ring = &mut self.rings[worker as usize];
        let (evicted, committed) = (ring.evict(BATCH / 2), ring.commit(BATCH / 2));
        (ring.holder, evicted.chain(committed).collect())
    }

    /// A prompt of which some worker has all but up to `lacks` blocks at its end.
    fn prompt(&mut self, hot: u64, len: u64, lacks: u64) -> Vec<BlockHash> {
        let ring = &self.rings[(self.dice.roll() % WORKERS) as usize];
        let has = (len - hot - self.dice.0 % lacks).min(ring.head - ring.tail);
        let hot = (0..hot).map(|at| hash(WORKERS, at));
        hot.chain((ring.head - has..).map(|at| hash(ring.name, at))).take(len as usize).collect()
    }

    fn heat(&mut self) {
        let events: Vec<_> = (0..HOT.0).map(|at| committed(hash(WORKERS, at))).collect();
        let step = (WORKERS / HOT.1) as usize;
        for ring in self.rings.iter().step_by(step) {
            self.index.apply(ring.holder, &events).expect("bytes");
        }
    }
}

/// Prints how long single lookups take, each of another prompt.
fn percentiles(fleet: &mut Fleet, name: &str, hot: u64, [len, lacks]: [u64; 2]) {
    let mut hits = Hits::default();
    let mut found = 0;
    let mut took: Vec<Duration> = (0..LOOKUPS)
        .map(|_| {
            let prompt = fleet.prompt(hot, len, lacks);
            let begin = Instant::now();
            fleet.index.find(&prompt, &mut hits);
            let took = begin.elapsed();
            found += hits.as_slice().len();
            took
        })
        .collect();
    let mean = found as f64 / LOOKUPS as f64;
    println!(
        "{name}: find {len:>4} blocks, up to {lacks:>4} new, {mean:>5.1} workers: {}",
        quantiles(&mut took)
    );
}

fn quantiles(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let us = |part: usize| took[took.len() * part / 1000].as_secs_f64() * 1e6;
    format!("p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us", us(500), us(990), us(999))
}

fn shape(criterion: &mut Criterion, name: &str, sharers: u64) {
    let mut fleet = Fleet::new(sharers);
    let (memberships, bytes) = (fleet.index.memberships(), fleet.index.bytes());
    println!(
        "{name}: {memberships} memberships, {} blocks, {:.1} bytes a membership",
        fleet.index.blocks(),
        bytes as f64 / memberships as f64,
    );
    println!("{name}: {BATCH} commits while it grew: {}", quantiles(&mut fleet.batches));
    for prompts in PROMPTS {
        percentiles(&mut fleet, name, 0, prompts);
    }
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("news", |bench| bench.iter_custom(|count| news(&mut fleet, count, false)));
    group.throughput(Throughput::Elements(BATCH + 512));
    group.bench_function("news and lookups", |bench| {
        bench.iter_custom(|count| news(&mut fleet, count, true));
    });
    group.finish();
    fleet.heat();
    percentiles(&mut fleet, &format!("{name}, hot"), HOT.0, [512, 384]);
}

/// What it takes to note some batches, prepared some thousands at a time; with lookups in between or without.
fn news(fleet: &mut Fleet, count: u64, with_lookups: bool) -> Duration {
    let mut hits = Hits::default();
    let mut took = Duration::ZERO;
    for first in (0..count).step_by(1_000) {
        let batches = (first..count.min(first + 1_000)).map(|_| {
            (fleet.news(), if with_lookups { fleet.prompt(0, 512, 512) } else { Vec::new() })
        });
        let batches: Vec<_> = batches.collect();
        let begin = Instant::now();
        for ((holder, events), prompt) in &batches {
            fleet.index.apply(*holder, events).expect("bytes");
            fleet.index.find(prompt, &mut hits);
        }
        took += begin.elapsed();
    }
    took
}

fn shapes(criterion: &mut Criterion) {
    shape(criterion, "one worker a block", 1);
    shape(criterion, "four workers a block", 4);
}

criterion_group!(benches, shapes);
criterion_main!(benches);
