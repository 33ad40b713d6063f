//! A real model over slower memory gives the tokens that it gives without.

mod support;

use engine::{EngineHandle, TierCounts, TierOptions};
use kv_cache::Tier;
use support::{
    Answers, CONFIG, Sizes, answers, assert_idle, generate, prompt, seeded, start_above,
    start_reference, submit, work,
};
use words::{Generation, Sampling};

/// Of the test's model: three layers of 2 x 2 heads x 16 tokens x 16 numbers of two bytes.
const BLOCK_BYTES: u64 = 6144;

/// An engine with few blocks on the device, over a host with many.
fn over_a_host(kv_blocks: u32, host_blocks: u64) -> EngineHandle {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("config.json"), CONFIG).expect("a file in it");
    let tiers = TierOptions { host_bytes: host_blocks * BLOCK_BYTES };
    start_above(dir.path(), None, Sizes { kv_blocks, ..Sizes::default() }, tiers)
}

fn host(engine: &EngineHandle) -> TierCounts {
    *engine.tiers().iter().find(|counts| counts.tier == Tier::Host).expect("a host tier")
}

/// Waits until whatever is to go down has gone.
async fn sink(engine: &EngineHandle) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !engine.pool().unsaved(1).is_empty() {
        assert!(std::time::Instant::now() < deadline, "{:?}", engine.tiers());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

/// Conversations of three turns, as much as three times the device holds.
fn conversations() -> Vec<Generation> {
    let turn = |number: u32, turn: u32| {
        let sampling = if number.is_multiple_of(2) { Sampling::greedy() } else { seeded(3) };
        work(&prompt(number, 40 + 30 * turn), 20, sampling)
    };
    (0..3).flat_map(|at| (0..12).map(move |number| turn(number, at))).collect()
}

async fn one_by_one(engine: &EngineHandle, works: &[Generation]) -> Vec<Answers> {
    let mut all = Vec::new();
    for work in works {
        all.push(generate(engine, work).await);
        sink(engine).await;
    }
    all
}

#[tokio::test]
async fn conversations_go_on_from_the_host_with_the_same_tokens() {
    let works = conversations();
    let expected = one_by_one(&start_reference(), &works).await;
    let engine = over_a_host(32, 256);
    assert_eq!(one_by_one(&engine, &works).await, expected);
    let host = host(&engine);
    assert!(host.hit_blocks > 24, "{host:?}");
    assert_eq!(host.bytes_up, host.hit_blocks * BLOCK_BYTES);
    assert!(host.used_bytes <= host.capacity_bytes && host.bytes_down > 0, "{host:?}");
    assert_idle(&engine).await;
}

/// More at once than the device holds: some are preempted, and take up again what they had.
#[tokio::test]
async fn a_crowd_over_a_small_device_and_a_small_host_gets_the_same_tokens() {
    let works = conversations();
    let expected = one_by_one(&start_reference(), &works).await;
    let engine = over_a_host(24, 40);
    for round in 0..2 {
        let streams: Vec<_> =
            works.iter().map(|work| submit(&engine, work, engine::Mode::Generate)).collect();
        for (stream, expected) in streams.into_iter().zip(&expected) {
            assert_eq!(&answers(stream).await, expected, "round {round}");
        }
    }
    assert!(host(&engine).bytes_down > 0);
    assert_idle(&engine).await;
}
