use proptest::prelude::*;
use rstest::rstest;

use super::*;

mod served;

/// An H100's multiprocessors.
const ALL: u32 = 132;

const TARGETS: PartitionTargets =
    PartitionTargets { itl: Duration::from_millis(15), hold: Duration::from_millis(300) };

/// Each case: decode's multiprocessors in each split, the present one in brackets; a decode step in
/// tenths of ms (0: not measured); ms of work that wait for prefill; and where it goes.
#[rstest]
// Decode misses its target.
#[case::too_slow("24 [32] 48 64", 151, 0, 48)]
#[case::much_too_slow("24 [32] 48 64", 290, 0, 64)]
#[case::no_more_to_give("24 32 48 [64]", 400, 0, 64)]
#[case::a_short_queue_is_no_reason("24 [32] 48 64", 151, 150, 48)]
#[case::not_at_the_queues_cost("24 [32] 48 64", 151, 151, 32)]
// Prompts wait.
#[case::a_long_queue_comes_first("24 32 48 [64]", 140, 700, 48)]
#[case::beyond_the_target("24 [32] 48 64", 400, 700, 24)]
#[case::prefill_has_all_it_can_get("[24] 32 48 64", 400, 9_000, 24)]
// Decode meets its target.
#[case::on_target("24 [32] 48 64", 150, 0, 32)]
#[case::fast("24 [32] 48 64", 95, 0, 24)]
#[case::fast_but_not_enough("24 [32] 48 64", 96, 699, 32)]
#[case::very_fast("24 32 48 [64]", 45, 0, 24)]
#[case::wide_steps_are_farther_apart("24 [64]", 48, 0, 64)]
// There is nothing to decide.
#[case::nothing_measured("24 [32] 48 64", 0, 9_000, 32)]
#[case::one_split("[40]", 400, 9_000, 40)]
fn a_split_follows_the_load(
    #[case] splits: &str,
    #[case] step_tenths_ms: u64,
    #[case] wait_ms: u64,
    #[case] expected: u32,
) {
    let mut partitioner = read(splits);
    let before = partitioner.decode_multiprocessors();
    let step = Duration::from_micros(100 * step_tenths_ms);
    let decode_step = (!step.is_zero()).then_some(step);
    let prefill_wait = Duration::from_millis(wait_ms);
    let load = PartitionLoad { decode_step, prefill_wait, prefill_busy: 0.4 };
    let changed = partitioner.decide(&load, Instant::now());
    assert_eq!(partitioner.decode_multiprocessors(), expected);
    assert_eq!(changed, before != expected);
    assert_eq!(partitioner.changes(), u64::from(changed));
}

fn read(splits: &str) -> Partitioner {
    let at = splits.split(' ').position(|word| word.starts_with('[')).expect("a present split");
    let counts = splits.split(' ').map(|word| word.trim_matches(['[', ']']).parse().unwrap());
    Partitioner::new(counts.collect(), ALL, at, TARGETS)
}

/// Each case: how busy prefill is beside decode's 32 multiprocessors, and where decode goes from there
/// with steps of three times its target.
#[rstest]
#[case::much_is_left(0.5, 64)]
#[case::a_little_less(0.6, 48)]
#[case::nothing_is(0.7, 32)]
#[case::too_much_already(1.0, 32)]
fn decode_takes_what_prefill_can_spare(#[case] prefill_busy: f64, #[case] expected: u32) {
    let mut partitioner = read("24 [32] 48 64");
    let decode_step = Some(TARGETS.itl * 3);
    let load = PartitionLoad { decode_step, prefill_wait: Duration::ZERO, prefill_busy };
    partitioner.decide(&load, Instant::now());
    assert_eq!(partitioner.decode_multiprocessors(), expected);
}

#[test]
fn a_change_is_held_until_it_can_have_been_measured() {
    let mut partitioner = read("[24] 32 48 64");
    let start = Instant::now();
    let step = |ms| PartitionLoad {
        decode_step: Some(Duration::from_millis(ms)),
        ..PartitionLoad::default()
    };
    let at = |ms| start + Duration::from_millis(ms);
    assert!(partitioner.decide(&step(20), at(0)));
    assert!(!partitioner.decide(&step(20), at(299)));
    assert!(partitioner.decide(&step(20), at(300)));
    assert_eq!((partitioner.decode_multiprocessors(), partitioner.changes()), (48, 2));
}

/// Each case: whose step; whether the other has a step in flight, and how many ms ago it submitted
/// it; whether a step of its own is in flight that gives tokens; and where it runs.
#[rstest]
#[case(Role::Decode, false, None, false, Room::Whole)]
#[case(Role::Decode, true, Some(90), false, Room::Part)]
#[case::prefill_is_over(Role::Decode, false, Some(5), true, Room::Whole)]
#[case(Role::Prefill, false, None, false, Room::Whole)]
#[case(Role::Prefill, true, Some(4), false, Room::Part)]
#[case::between_two_steps(Role::Prefill, false, Some(30), false, Room::Part)]
#[case::decode_is_over(Role::Prefill, false, Some(31), false, Room::Whole)]
#[case::decode_begins_soon(Role::Prefill, false, None, true, Room::Part)]
fn a_step_runs_where_it_disturbs_nobody(
    #[case] role: Role,
    #[case] in_flight: bool,
    #[case] submitted_ms_ago: Option<u64>,
    #[case] own_gives_tokens: bool,
    #[case] expected: Room,
) {
    let submitted_ago = submitted_ms_ago.map(Duration::from_millis);
    let other = EngineActivity { in_flight, submitted_ago, gives_tokens: true };
    let own = EngineActivity {
        in_flight: own_gives_tokens,
        submitted_ago: None,
        gives_tokens: own_gives_tokens,
    };
    assert_eq!(Room::of(role, &own, &other), expected);
}

proptest! {
    /// Decode's time is `work / multiprocessors`, or less than that would say. Whatever it is, the
    /// split comes to rest.
    #[test]
    fn a_steady_load_ends_in_a_steady_split(
        work_ms in 50.0..2000.0f64,
        floor_ms in 1.0..14.0f64,
        wait_ms in 0u64..2000,
        prefill_busy in 0.0..1.0f64,
        first in 0usize..4,
    ) {
        let splits = vec![24, 32, 48, 64];
        let mut partitioner = Partitioner::new(splits.clone(), ALL, first, TARGETS);
        let start = Instant::now();
        for round in 0..20 {
            let step_ms = (work_ms / f64::from(partitioner.decode_multiprocessors())).max(floor_ms);
            let decode_step = Some(Duration::from_secs_f64(step_ms / 1e3));
            let prefill_wait = Duration::from_millis(wait_ms);
            let load = PartitionLoad { decode_step, prefill_wait, prefill_busy };
            let changed = partitioner.decide(&load, start + Duration::from_secs(round));
            prop_assert!(!changed || round < splits.len() as u64, "{partitioner:?}");
        }
    }
}
