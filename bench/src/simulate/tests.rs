use std::path::Path;

use rstest::rstest;
use scheduler::cost::StepSeed;

use super::*;
use crate::document::{Body, Document};

/// Nobody is refused.
const PATIENT: Slo = Slo { ttft_ms: 1e7, tpot_ms: 1e7, itl_p99_ms: None };

/// Two engines, and the beginning of a published trace, as fast as it was.
fn options(file: &str, policy: Policy) -> SimulateOptions {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(file);
    SimulateOptions {
        trace: Trace::read(&path, usize::MAX).expect("a trace"),
        fleet: Fleet {
            prefill: 0,
            decode: 2,
            blocks: 6_000,
            block_tokens: 128,
            sequences_max: 256,
            steps: StepSeed::GPU,
            handoff: Handoff::default(),
        },
        routers: 1,
        events_delay: Duration::ZERO,
        slo: Slo { ttft_ms: 5_000.0, tpot_ms: 50.0, itl_p99_ms: None },
        policies: vec![policy],
        seed: 7,
        progress: false,
    }
}

fn simulated(options: &SimulateOptions) -> SimulatedRun {
    run(options, &mut |_| {}).expect("it runs").runs.remove(0)
}

#[rstest]
fn everybody_is_answered_in_full_by_every_policy(
    #[values("mooncake.jsonl", "azure.csv", "agents.jsonl", "burst.csv")] file: &str,
    #[values("ours", "random", "round-robin", "sglang", "dynamo", "mooncake", "llm-d")]
    policy: &str,
    #[values((0, 2), (2, 1))] (prefill, decode): (usize, usize),
) {
    let options = options(file, policy.parse().expect("a policy"));
    let fleet = Fleet { prefill, decode, ..options.fleet };
    let options = SimulateOptions { fleet, slo: PATIENT, ..options };
    let report = simulated(&options).report;
    let requests = &options.trace.requests;
    assert_eq!((report.completed, report.failed), (requests.len() as u64, 0), "{report}");
    let outputs = requests.iter().map(|it| u64::from(it.output_length)).sum::<u64>();
    assert_eq!(report.output_tokens, outputs);
    let paths: u64 = report.paths.values().sum();
    assert_eq!(paths, report.completed);
}

#[test]
fn one_seed_is_one_result() {
    let of =
        |seed| simulated(&SimulateOptions { seed, ..options("mooncake.jsonl", Policy::Random) });
    assert_eq!(of(7), of(7));
    assert_ne!(of(7).report.ttft_ms, of(8).report.ttft_ms);
}

/// One engine with memory for all finds what one cache without an end does, but for what comes at once.
#[test]
fn a_large_cache_finds_nearly_all_there_is_to_find() {
    let options = options("agents.jsonl", Policy::Ours);
    let options = SimulateOptions { fleet: Fleet { decode: 1, ..options.fleet }, ..options };
    let report = run(&options, &mut |_| {}).expect("it runs");
    let (found, ideal) = (report.runs[0].cached_percent(), report.ideal_cached_percent);
    assert!(found <= ideal && found > 0.95 * ideal && ideal > 40.0, "{found} of {ideal}");
}

/// What has no room is evicted or waits, and is answered all the same.
#[test]
fn little_memory_is_enough_for_one_after_the_other() {
    let options = options("mooncake.jsonl", Policy::RoundRobin);
    let fleet = Fleet { blocks: 1_000, ..options.fleet };
    let run = simulated(&SimulateOptions { fleet, slo: PATIENT, ..options });
    assert_eq!(run.report.failed, 0, "{}", run.report);
}

#[test]
fn more_than_can_be_served_is_refused() {
    let mut options = options("mooncake.jsonl", Policy::Ours);
    options.trace.speed = 50.0;
    let report = simulated(&options).report;
    assert!(report.refused > 10 && report.refused + report.completed == 80, "{report}");
    // Of those that were let in nearly all are in time.
    assert!(10 * report.good > 9 * report.completed, "{report}");
}

#[test]
fn a_fleet_without_anybody_who_generates_is_none() {
    let options = options("azure.csv", Policy::Ours);
    let fleet = Fleet { prefill: 1, decode: 0, ..options.fleet };
    let why = run(&SimulateOptions { fleet, ..options }, &mut |_| {}).expect_err("nobody");
    assert!(why.to_string().starts_with("nobody generates"), "{why}");
}

#[test]
fn a_page_has_a_plot_for_each_question_and_each_policy() {
    let policies = vec![Policy::Ours, Policy::Random];
    let report =
        run(&SimulateOptions { policies, ..options("mooncake.jsonl", Policy::Ours) }, &mut |_| {});
    let report = report.expect("it runs");
    let document = Document::new("baton simulate".to_owned(), Body::Simulate(report.clone()));
    let page = page(&report, &document);
    assert_eq!(page.matches("<svg").count(), 4 + 2);
    assert!(page.ends_with("</html>\n") && page.contains("Busy, random"));
    for (word, why) in [("http", "the network"), ("NaN", "numbers"), ("inf", "numbers")] {
        assert!(!page.contains(word), "{word}: {why}");
    }
}

#[test]
fn the_fewest_workers_that_serve_are_found() {
    let mut options = options("azure.csv", Policy::Ours);
    options.trace.speed = 20.0;
    options.slo = Slo { ttft_ms: 300.0, tpot_ms: 30.0, itl_p99_ms: None };
    let mut tried = Vec::new();
    let sizing = size(&options, &mut |it| tried.push((it.prefill, it.decode))).expect("a policy");
    let engines = sizing.engines.expect("they are enough");
    assert!(engines.run.report.is_within() && engines.decode > 1, "{engines}");
    let fewer = Fleet { prefill: 0, decode: engines.decode - 1, ..options.fleet };
    assert!(tried.contains(&(0, engines.decode - 1)));
    let report = simulated(&SimulateOptions { fleet: fewer, ..options }).report;
    assert!(!report.is_within(), "{report}");
    let split = sizing.split.expect("they are enough");
    assert!(split.run.report.is_within() && split.prefill > 0, "{split}");
}
