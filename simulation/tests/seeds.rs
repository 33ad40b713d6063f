//! Seeds, in processes of their own: they pass, they repeat themselves, and they find what is planted.

use std::process::{Command, Output};

use rstest::rstest;

/// Seeds that every run of the tests goes through.
const FIXED: u64 = 60;
/// Seeds that are new each time.
const FRESH: u64 = 30;

fn simulation(args: &[&str]) -> (Output, String) {
    let program = env!("CARGO_BIN_EXE_baton-simulation");
    let output = Command::new(program).args(args).output().expect("the simulation");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

fn holds(args: &[&str]) {
    let (output, said) = simulation(args);
    assert!(output.status.success(), "{said}");
}

#[test]
fn fixed_seeds_pass() {
    holds(&["--seed", "1", "--seeds", &FIXED.to_string()]);
}

#[test]
fn fresh_seeds_pass() {
    holds(&["--seeds", &FRESH.to_string()]);
}

#[rstest]
fn a_seed_repeats_itself(#[values(3, 8, 21)] seed: u64) {
    let run = || simulation(&["--here", "--seed", &seed.to_string()]).1;
    assert_eq!(run(), run());
}

#[rstest]
fn a_planted_bug_is_found_and_its_seed_printed(
    #[values(
        "late-write",
        "lost-commit",
        "leaked-reservation",
        "accepted-corrupt-page",
        "unpinned-fingerprint",
        "eternal-exclusion",
        "unauthenticated-call"
    )]
    bug: &str,
) {
    let (output, said) = simulation(&["--bug", bug, "--seed", "1", "--seeds", "1000"]);
    assert!(!output.status.success(), "nothing found of {bug}");
    assert!(said.contains("found: "), "{said}");
    assert!(said.contains("again: cargo xtask sim --seed "), "{said}");
}
