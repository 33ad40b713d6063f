//! A real model over slower memory gives the tokens that it gives without.

mod support;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::{DiskOptions, EngineHandle, TierCounts, TierOptions};
use kv_cache::Tier;
use support::{
    Answers, CONFIG, Sizes, answers, assert_idle, generate, prompt, seeded, start_above,
    start_reference, submit, work,
};
use words::{Generation, Sampling};

/// Of the test's model: three layers of 2 x 2 heads x 16 tokens x 16 numbers of two bytes.
const BLOCK_BYTES: u64 = 6144;

/// An engine with few blocks on the device, over a host with many, or a disk, or both.
fn over(kv_blocks: u32, host_blocks: u64, disk: Option<&Path>) -> EngineHandle {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("config.json"), CONFIG).expect("a file in it");
    let disk = disk.map(|dir| DiskOptions { dir: dir.to_owned(), bytes: 400 * BLOCK_BYTES });
    let tiers = TierOptions { host_bytes: host_blocks * BLOCK_BYTES, disk };
    start_above(dir.path(), None, Sizes { kv_blocks, ..Sizes::default() }, tiers)
}

fn counts(engine: &EngineHandle, tier: Tier) -> TierCounts {
    *engine.tiers().iter().find(|counts| counts.tier == tier).expect("such a tier")
}

async fn wait_until(what: &str, engine: &EngineHandle, holds: impl Fn(&EngineHandle) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds(engine) {
        assert!(Instant::now() < deadline, "{what}: {:?}", engine.tiers());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until whatever is to leave the device has gone down.
async fn sink(engine: &EngineHandle) {
    wait_until("copies", engine, |engine| engine.pool().unsaved(1).is_empty()).await;
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
    let engine = over(32, 256, None);
    assert_eq!(one_by_one(&engine, &works).await, expected);
    let host = counts(&engine, Tier::Host);
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
    let engine = over(24, 40, None);
    for round in 0..2 {
        let streams: Vec<_> =
            works.iter().map(|work| submit(&engine, work, engine::Mode::Generate)).collect();
        for (stream, expected) in streams.into_iter().zip(&expected) {
            assert_eq!(&answers(stream).await, expected, "round {round}");
        }
    }
    assert!(counts(&engine, Tier::Host).bytes_down > 0);
    assert_idle(&engine).await;
}

/// What a life of a worker leaves on a disk, and what its prompts' answers are.
async fn a_life(dir: &Path) -> (Vec<Generation>, Vec<Answers>) {
    let works = conversations();
    let engine = over(32, 0, Some(dir));
    let answers = one_by_one(&engine, &works).await;
    assert_eq!(answers, one_by_one(&start_reference(), &works).await);
    assert!(counts(&engine, Tier::Disk).hit_blocks > 0, "{:?}", engine.tiers());
    assert_idle(&engine).await;
    (works, answers)
}

/// One of the files that it leaves.
fn file_of(dir: &Path, name: &str) -> PathBuf {
    let folders = fs::read_dir(dir).expect("a folder").flatten().map(|entry| entry.path());
    let models: Vec<_> = folders.filter(|path| path.is_dir()).collect();
    assert_eq!(models.len(), 1, "{models:?}");
    models[0].join(name)
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("a file that is there")
}

#[tokio::test]
async fn a_later_life_finds_what_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (works, answers) = a_life(dir.path()).await;
    let engine = over(32, 16, Some(dir.path()));
    let found = counts(&engine, Tier::Disk);
    assert!(found.used_bytes > 40 * BLOCK_BYTES, "{found:?}");
    assert_eq!(one_by_one(&engine, &works).await, answers);
    let disk = counts(&engine, Tier::Disk);
    assert!(disk.hit_blocks > 20 && disk.corrupt_blocks == 0, "{disk:?}");
    assert_idle(&engine).await;
}

#[tokio::test]
async fn through_host_and_disk_the_tokens_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let works = conversations();
    let engine = over(24, 24, Some(dir.path()));
    let expected = one_by_one(&start_reference(), &works).await;
    assert_eq!(one_by_one(&engine, &works).await, expected);
    for tier in [Tier::Host, Tier::Disk] {
        assert!(counts(&engine, tier).bytes_down > 0, "{:?}", engine.tiers());
    }
    assert!(counts(&engine, Tier::Disk).hit_blocks > 0, "{:?}", engine.tiers());
    assert_idle(&engine).await;
}

#[tokio::test]
async fn a_flipped_bit_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let (works, answers) = a_life(dir.path()).await;
    let blocks = open(&file_of(dir.path(), "blocks"));
    let len = blocks.metadata().unwrap().len();
    // One bit in every second block.
    for at in (1000..len).step_by(2 * BLOCK_BYTES as usize) {
        let mut byte = [0];
        blocks.read_exact_at(&mut byte, at).unwrap();
        blocks.write_all_at(&[byte[0] ^ 4], at).unwrap();
    }
    let engine = over(32, 0, Some(dir.path()));
    assert_eq!(one_by_one(&engine, &works).await, answers);
    let disk = counts(&engine, Tier::Disk);
    assert!(disk.corrupt_blocks > 5, "{disk:?}");
    assert_idle(&engine).await;
}

/// Of the files: what a crash or somebody's hand may do to them, between two lives and within one.
#[rstest::rstest]
#[case::blocks_cut("blocks", 2)]
#[case::entries_cut("entries", 2)]
#[case::no_blocks("blocks", u64::MAX)]
#[case::no_entries("entries", u64::MAX)]
#[tokio::test]
async fn files_that_are_cut_short_cost_what_was_in_them(
    #[case] name: &str,
    #[case] part: u64,
    #[values(false, true)] within_a_life: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let (works, answers) = a_life(dir.path()).await;
    let cut = || {
        let file = open(&file_of(dir.path(), name));
        file.set_len(file.metadata().unwrap().len() / part + 1).unwrap();
    };
    if !within_a_life {
        cut();
    }
    let engine = over(32, 0, Some(dir.path()));
    if within_a_life {
        cut();
    }
    assert_eq!(one_by_one(&engine, &works).await, answers);
    assert_idle(&engine).await;
    drop(engine);
    assert_eq!(one_by_one(&over(32, 0, Some(dir.path())), &works).await, answers);
}

/// `/dev/full` says what a full disk says.
#[tokio::test]
async fn a_full_disk_keeps_nothing_and_serving_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (works, answers) = a_life(dir.path()).await;
    let blocks = file_of(dir.path(), "blocks");
    fs::remove_file(&blocks).unwrap();
    std::os::unix::fs::symlink("/dev/full", &blocks).unwrap();
    let engine = over(32, 32, Some(dir.path()));
    for work in &works {
        generate(&engine, work).await;
    }
    wait_until("a refusal", &engine, |it| counts(it, Tier::Disk).failed_writes > 0).await;
    assert_eq!(counts(&engine, Tier::Disk).used_bytes, 0);
    assert_eq!(generate(&engine, &works[0]).await, answers[0]);
    let host = counts(&engine, Tier::Host);
    assert!(host.hit_blocks > 0 && host.evictions.lost > 0, "{host:?}");
    assert_idle(&engine).await;
}

#[tokio::test]
async fn a_folder_is_one_workers() {
    let dir = tempfile::tempdir().unwrap();
    let _first = over(32, 0, Some(dir.path()));
    let model = tempfile::tempdir().unwrap();
    fs::write(model.path().join("config.json"), CONFIG).unwrap();
    let disk = Some(DiskOptions { dir: dir.path().to_owned(), bytes: 1 << 20 });
    let config =
        support::config(model.path(), None, Sizes::default(), TierOptions { host_bytes: 0, disk });
    let refused = engine::Engine::start(&config, &mut |_| ()).unwrap_err().to_string();
    assert!(refused.contains("another worker"), "{refused}");
}
