//! What is known of each way in: its seeds, and what a fuzzer found once, on ordinary builds.

// Says which input it is at: a panic doesn't.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use baton_fuzz::{ALL, Target};
use parking_lot::Mutex;

/// Costs are the process's: one target at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Files of a target's corpus, by name.
fn files(target: &Target) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_was_found_stays_mended() {
    let _turn = TURN.lock();
    baton_fuzz::hush_caught_panics();
    for target in ALL {
        target.prepare();
        for file in files(target) {
            println!("{}", file.display());
            target.check(&std::fs::read(&file).unwrap());
        }
        for (number, seed) in (target.seeds)().iter().enumerate() {
            println!("{}, seed {number}", target.name);
            target.check(seed);
        }
    }
}

#[test]
fn every_target_has_something_to_begin_with_and_it_is_small() {
    for target in ALL {
        let files = files(target);
        assert!(!files.is_empty() || !(target.seeds)().is_empty(), "{}", target.name);
        let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(bytes < 256 << 10, "{}: {bytes} bytes", target.name);
    }
}
