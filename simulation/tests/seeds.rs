//! Seeds, in processes of their own: they pass, they come through everything, they repeat themselves, and
//! they find what is planted.

use std::process::{Command, Output};

use rstest::rstest;

/// Seeds that every run of the tests goes through: enough to come through everything.
const FIXED: u64 = 150;
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
fn fixed_seeds_pass_and_come_through_everything() {
    holds(&["--seed", "1", "--seeds", &FIXED.to_string(), "--coverage"]);
}

#[test]
fn fresh_seeds_pass() {
    holds(&["--seeds", &FRESH.to_string()]);
}

/// Each found something once.
#[rstest]
#[case::a_flipped_bit_in_a_header(7381)]
#[case::blocks_on_their_way(1_796_023_811_000_003)]
fn what_seeds_have_found_stays_mended(#[case] seed: u64) {
    holds(&["--seed", &seed.to_string()]);
}

#[rstest]
#[case::open(3)]
#[case::flipping(8)]
#[case::with_certificates(7)]
#[case::with_a_secret(23)]
fn a_seed_repeats_itself(#[case] seed: u64) {
    let run = || simulation(&["--here", "--seed", &seed.to_string()]).1;
    assert_eq!(run(), run());
}

/// Each kind is found by the check that is there for it.
#[rstest]
#[case("late-write", "")]
#[case("lost-commit", "")]
#[case("leaked-reservation", "")]
#[case("accepted-corrupt-page", "a wrong token")]
#[case("unpinned-fingerprint", "a wrong token")]
#[case("unbound-placement", "a wrong ")]
#[case("eternal-exclusion", "though the cluster is well")]
#[case("unauthenticated-call", " let a caller without TLS ")]
#[case("orphan-block", "blocks that nobody owns")]
#[case("stray-write", "a step writes to a free block")]
#[case("lost-token", "after 1 tokens")]
#[case("doubled-token", "after 1 tokens")]
#[case("silent-end", "lost without an error")]
#[case("wrong-reason", "Stop(4294967295) after")]
#[case("wrong-logprob", "a wrong token")]
#[case("lost-score", "lost without an error")]
#[case("deaf-to-deadlines", "past its deadline, and no end")]
#[case("needless-failure", "though the cluster is well")]
#[case("starvation", "to its first token")]
fn a_planted_bug_is_found_and_its_seed_printed(#[case] bug: &str, #[case] by: &str) {
    let (output, said) = simulation(&["--bug", bug, "--seed", "1", "--seeds", "1000"]);
    assert!(!output.status.success(), "nothing found of {bug}");
    assert!(said.contains("found: ") && said.contains(by), "{said}");
    assert!(said.contains("again: cargo xtask sim --seed "), "{said}");
}

#[test]
fn a_seed_that_stands_still_is_ended_and_says_where() {
    let args = ["--bug", "endless-turn", "--seed", "1", "--seeds", "20", "--limit-s", "5"];
    let (output, said) = simulation(&args);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("stuck: not done after 5 s, in host "), "{said}");
    assert!(said.contains("again: cargo xtask sim --seed "), "{said}");
}
