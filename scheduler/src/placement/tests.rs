use std::sync::Arc;

use proptest::prelude::*;
use rstest::rstest;
use words::{HandoffTotals, Load, NodeState, Role};

use self::table::{cluster, decide, decide_only, decide_wide, life, request};
use super::*;

mod properties;
mod served;
pub(super) mod table;

/// Each case: the workers (see [`table`]), the prompt's tokens, the policy, and the decision.
///
/// A fleet's worker computes 10,000 prompt tokens a second, a decode step takes 10 ms.
#[rstest]
// The path.
#[case::long_prompts_are_handed_over("p1 d1", 4_000, "auto", "p1 -> d1: handoff-cheaper")]
#[case::a_tiny_prompt_stays_on_an_idle_decode_worker("p1 d1", 10, "auto", "d1: local-cheaper")]
#[case::but_not_on_a_busy_one("p1[busy=70] d1[run=40]", 10, "auto", "p1 -> d1: handoff-cheaper")]
#[case::far_behind_prefill_workers_are_avoided(
    "p1[queue=50000] d1",
    2_000,
    "auto",
    "d1: local-cheaper"
)]
#[case::unless_the_decode_worker_is_busier(
    "p1[run=1 queue=5000 busy=50] d1[run=60]",
    2_000,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
#[case::always("p1 d1", 10, "always", "p1 -> d1: handoff-policy")]
#[case::never("p1 d1", 4_000, "never", "d1: local-policy")]
// Either kind of worker does both.
#[case::an_idle_prefill_worker_decodes("p1 d1[run=40]", 100, "auto", "p1: prefill-decodes")]
#[case::but_not_beside_an_idle_decode_worker("p1 d1", 100, "auto", "p1 -> d1: handoff-cheaper")]
#[case::nor_while_prompts_come_all_the_time(
    "p1[busy=60] d1[run=40]",
    1_000,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
#[case::nor_while_prompts_wait(
    "p1[run=2 queue=2000 busy=90] d1[run=40]",
    1_000,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
#[case::one_that_decodes_takes_more(
    "p1[run=8 gen=8] d1[run=40]",
    100,
    "auto",
    "p1: prefill-decodes"
)]
#[case::until_it_has_as_many("p1[run=30 gen=30] d1[run=30]", 100, "auto", "d1: local-cheaper")]
#[case::its_prompts_keep_a_quarter_of_its_places(
    "p1[run=48 gen=48] d1[run=60]",
    100,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
#[case::and_of_its_memory(
    "p1[run=8 gen=8 free=2000] d1[run=40]",
    100,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
#[case::a_full_one_leaves_short_prompts_to_decode_workers(
    "p1[run=8 queue=16000 busy=95] d1[run=10]",
    500,
    "auto",
    "d1: local-cheaper"
)]
#[case::but_no_long_ones_while_it_keeps_up(
    "p1[run=1 queue=4000 busy=50] d1[run=10]",
    16_000,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
#[case::nor_where_tokens_would_come_too_slowly(
    "p1[run=8 queue=64000 busy=95] d1[run=45 step=70]",
    64_000,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
#[case::unless_nothing_else_is_possible(
    "p1[run=96] d1[run=10 step=150]",
    500,
    "auto",
    "d1: prefill-pool-full"
)]
#[case::a_decode_worker_that_is_full("p1 d1[run=64 wait=32]", 4_000, "auto", "p1: prefill-decodes")]
#[case::but_not_for_prompts_that_come_all_the_time(
    "p1[busy=60] d1[run=96 step=100]",
    4_000,
    "auto",
    "busy 578ms"
)]
#[case::unless_no_decode_worker_is_large_enough(
    "p1[busy=60] d1[tiny]",
    4_000,
    "auto",
    "p1: decode-pool-empty"
)]
#[case::what_this_router_sent_to_be_generated_counts(
    "p1[sent=9000] d1[run=20]",
    1_000,
    "auto",
    "p1 -> d1: handoff-cheaper"
)]
// What is cached.
#[case::who_has_the_prefix("p1 p2[has=3900] d1", 4_000, "always", "p2,p1 -> d1: handoff-policy")]
#[case::but_not_for_ever(
    "p1 p2[has=3900 queue=9000] d1",
    4_000,
    "always",
    "p1,p2 -> d1: handoff-policy"
)]
#[case::the_longer_one_counts(
    "p1[has=1000] p2[has=2000] d1",
    4_000,
    "always",
    "p2,p1 -> d1: handoff-policy"
)]
#[case::device_before_host(
    "p1[host=3900] p2[has=3900] d1",
    4_000,
    "always",
    "p2,p1 -> d1: handoff-policy"
)]
#[case::host_before_disk(
    "p1[disk=3900] p2[host=3900] d1",
    4_000,
    "always",
    "p2,p1 -> d1: handoff-policy"
)]
#[case::disk_before_computing(
    "p1 p2[disk=3900] d1",
    4_000,
    "always",
    "p2,p1 -> d1: handoff-policy"
)]
#[case::computing_before_a_disk_that_is_slower(
    "p1[rate=90000] p2[rate=90000 disk=3900 queue=100] d1",
    4_000,
    "always",
    "p1,p2 -> d1: handoff-policy"
)]
#[case::a_decode_worker_that_has_it_computes_the_rest(
    "p1 d1[has=3990 run=4]",
    4_000,
    "auto",
    "d1: local-cheaper"
)]
#[case::what_a_decode_worker_has_is_not_handed_over(
    "p1 d1 d2[has=3000]",
    4_000,
    "always",
    "p1 -> d2: handoff-policy"
)]
#[case::a_whole_prompt_leaves_a_token(
    "p1[has=4000] p2[has=3999] d1",
    4_000,
    "always",
    "p1,p2 -> d1: handoff-policy"
)]
// The workers.
#[case::the_shorter_queue(
    "p1[queue=9000] p2[queue=100] d1",
    4_000,
    "always",
    "p2,p1 -> d1: handoff-policy"
)]
#[case::the_faster_worker(
    "p1[rate=1000] p2[rate=9000] d1",
    4_000,
    "always",
    "p2,p1 -> d1: handoff-policy"
)]
#[case::fast_with_a_queue_beats_slow_and_idle(
    "p1[rate=1000] p2[queue=9000] d1",
    4_000,
    "always",
    "p2,p1 -> d1: handoff-policy"
)]
#[case::what_this_router_sent_counts(
    "p1[sent=4000] p2 d1[sent=1] d2",
    4_000,
    "always",
    "p2,p1 -> d2: handoff-policy"
)]
#[case::the_smaller_batch("p1 d1[run=30] d2[run=20]", 4_000, "always", "p1 -> d2: handoff-policy")]
#[case::free_slots_before_a_faster_step(
    "p1 d1[run=64 wait=30 step=9] d2[run=60 step=12]",
    4_000,
    "always",
    "p1 -> d2: handoff-policy"
)]
#[case::free_blocks(
    "p1 d1[run=30 free=10] d2[run=30]",
    4_000,
    "always",
    "p1 -> d2: handoff-policy"
)]
#[case::one_without_a_report_is_thought_average(
    "p1[new] p2[queue=100] d1",
    4_000,
    "always",
    "p1,p2 -> d1: handoff-policy"
)]
#[case::at_most_four_are_named(
    "p1 p2 p3 p4 p5 d1",
    4_000,
    "always",
    "p1,p2,p3,p4 -> d1: handoff-policy"
)]
// A pool that is missing or full.
#[case::no_prefill_worker("d1 d2", 4_000, "always", "d1: prefill-pool-empty")]
#[case::no_prefill_worker_wanted("d1 d2", 4_000, "never", "d1: local-policy")]
#[case::no_decode_worker("p1 p2[queue=10]", 4_000, "never", "p1: decode-pool-empty")]
#[case::a_draining_pool_is_empty("p1[draining] d1", 4_000, "auto", "d1: prefill-pool-empty")]
#[case::a_silent_pool_is_empty("p1 d1[down]", 4_000, "auto", "p1: decode-pool-empty")]
#[case::an_excluded_pool_is_empty("p1[excluded] d1", 4_000, "always", "d1: prefill-pool-empty")]
#[case::an_excluded_decode_pool("p1 d1[excluded]", 4_000, "auto", "p1: prefill-decodes")]
#[case::an_excluded_decode_pool_by_policy(
    "p1 d1[excluded]",
    10,
    "always",
    "p1: decode-pool-excluded"
)]
#[case::an_excluded_decode_pool_where_prompts_come(
    "p1[busy=60] d1[excluded]",
    10,
    "auto",
    "p1: decode-pool-excluded"
)]
#[case::prefill_full("p1[run=96] d1", 4_000, "always", "d1: prefill-pool-full")]
#[case::only_the_full_one_is_left_out(
    "p1[run=96] p2[queue=50000] d1",
    4_000,
    "always",
    "p2 -> d1: handoff-policy"
)]
#[case::decode_full("p1 d1[run=64 wait=32 step=100]", 4_000, "always", "busy 578ms")]
#[case::both_full("p1[run=96] d1[run=64 wait=32 step=100]", 4_000, "auto", "busy 578ms")]
#[case::prefill_alone_and_full("p1[run=96 queue=96000]", 4_000, "auto", "busy 100ms")]
// Versions.
#[case::unequal_workers_are_not_paired(
    "p1 p2[v=2] d2[v=2]",
    4_000,
    "auto",
    "p2 -> d2: handoff-cheaper"
)]
#[case::a_whole_group_before_half_a_one(
    "p1[queue=90000] d1 d2[v=2]",
    4_000,
    "always",
    "p1 -> d1: handoff-policy"
)]
#[case::half_a_group_when_the_whole_one_is_full(
    "p1 d1[run=96] d2[v=2]",
    4_000,
    "always",
    "d2: prefill-pool-empty"
)]
// Refusals.
#[case::nobody("", 10, "auto", "no workers")]
#[case::nobody_serving("p1[starting] d1[draining]", 10, "auto", "no workers")]
#[case::another_life_is_not_excluded("d1[reborn]", 10, "auto", "d1: prefill-pool-empty")]
#[case::all_excluded("p1[excluded] d1[excluded]", 10, "auto", "no workers")]
#[case::another_model("p1[model=other] d1[model=other]", 10, "auto", "model missing")]
#[case::too_long("p1 d1", 200_000, "auto", "too long: 200100 of 131072")]
#[case::too_long_for_those_left("p1 d1[down] d2[tiny]", 4_000, "auto", "p1: decode-pool-empty")]
#[case::too_long_by_its_output_for_the_only_one_left(
    "p1[tiny]",
    1_000,
    "auto",
    "too long: 1100 of 1024"
)]
fn decisions(#[case] workers: &str, #[case] tokens: u32, #[case] policy: &str, #[case] want: &str) {
    assert_eq!(decide(workers, tokens, policy), want);
}

/// Each case: the workers, the sequences of a prompt of 1,000 tokens, and the decision.
#[rstest]
#[case::as_many_as_run_at_once("d1[places=8]", 8, "d1: prefill-pool-empty")]
#[case::one_more("d1[places=8]", 9, "too wide: 9 of 8")]
#[case::a_wider_worker("d1[places=8] d2[places=16]", 9, "d2: prefill-pool-empty")]
#[case::a_wider_one_that_is_down("d1[places=8] d2[places=16 down]", 9, "too wide: 9 of 8")]
#[case::prompts_have_no_width("p1[places=1] d1", 9, "p1 -> d1: handoff-cheaper")]
#[case::as_many_as_there_are_blocks_for("d1[places=2000]", 1_161, "d1: prefill-pool-empty")]
#[case::more_than_there_are_blocks_for("d1[places=2000]", 1_162, "too wide: 1162 of 1161")]
fn wide_requests(#[case] workers: &str, #[case] sequences: u32, #[case] want: &str) {
    assert_eq!(decide_wide(workers, sequences), want);
}

#[test]
fn a_decision_explains_itself() {
    let now = Instant::now();
    let snapshot = cluster("p1 p2[down] d1", now);
    let policy = LeastLoad { handoff: HandoffPolicy::Auto, ..LeastLoad::default() };
    let notes = Notes::default();
    let asked = request(4_000).noted(Some(&notes));
    let placement = policy.place(&snapshot, &asked, now).expect("a place");
    let seen: Vec<_> = notes
        .candidates()
        .into_iter()
        .map(|candidate| (candidate.worker.to_string(), candidate.part, candidate.verdict))
        .collect();
    let terms = |index: usize| match seen[index].2 {
        Verdict::Possible(terms) => terms,
        verdict => panic!("{verdict:?}"),
    };
    let parts: Vec<_> = seen.iter().map(|(worker, part, _)| (worker.as_str(), *part)).collect();
    let want = [
        ("p2", Part::Prefill),
        ("p1", Part::Prefill),
        ("d1", Part::Decode),
        ("d1", Part::Both),
        ("p1", Part::Both),
    ];
    assert_eq!(parts, want);
    assert_eq!(seen[0].2, Verdict::Rejected(Rejection::Unhealthy));
    assert_eq!(placement.terms, terms(1) + terms(2));
    assert!(terms(3).cost_s() > placement.terms.cost_s());
    // 0.4 s of prefill, about 9 ms of hand-off, one step of 10 ms.
    assert!((0.41..0.43).contains(&placement.estimated_ttft_s), "{placement:#?}");
    let told = notes.explain(&Ok(&placement));
    let (choice, reasons) = told.split_once("; ").expect("a choice and its reasons");
    assert_eq!(
        choice,
        "p1 -> d1 (handoff-cheaper): \
         queue 0.0000 + prefill 0.4000 + hand-off 0.0094 + decode 0.0100 s, \
         tokens 1.0000 s, stall 0.0000 s"
    );
    assert!(reasons.starts_with("p2 prefill: unhealthy; p1 prefill: queue"), "{reasons}");
}

#[test]
fn a_refusal_explains_itself() {
    let now = Instant::now();
    let snapshot = cluster("p1[down] d1[run=64 wait=32 step=100]", now);
    let notes = Notes::default();
    let refused = LeastLoad::default().place(&snapshot, &request(4_000).noted(Some(&notes)), now);
    let told = notes.explain(&refused.as_ref().map_err(|refusal| *refusal));
    assert!(told.starts_with("all workers are busy"), "{told}");
    assert!(told.ends_with("; p1 prefill: unhealthy; d1 both: full"), "{told}");
}

/// What workers report of hand-offs decides where the next prompt is computed.
#[test]
fn hand_offs_that_cost_more_than_they_save_are_left() {
    let now = Instant::now();
    let mut snapshot = cluster("p1 d1", now);
    let place = |snapshot: &ClusterSnapshot| {
        LeastLoad::default().place(snapshot, &request(4_000), now).expect("a place")
    };
    assert_eq!(place(&snapshot).reason, PlacementReason::HandoffCheaper);
    let (sender, mut handoffs) = (&mut snapshot.workers[0], HandoffTotals::default());
    let life = sender.info.address.incarnation;
    for sequence in 10..20 {
        handoffs.add(4_000, Duration::from_secs(2));
        let load = Load { sequence, handoffs, ..sender.load.clone().expect("a report") };
        sender.observe(life, load, now);
    }
    let placement = place(&snapshot);
    assert_eq!(placement.reason, PlacementReason::LocalCheaper, "{placement:#?}");
}

#[test]
fn equal_workers_take_turns() {
    let now = Instant::now();
    let snapshot = cluster("p1 p2 p3 d1", now);
    let policy = LeastLoad { handoff: HandoffPolicy::Always, ..LeastLoad::default() };
    let chosen: Vec<_> = (0..6)
        .map(|turn| {
            let request = PlacementRequest { turn, ..request(100) };
            policy.place(&snapshot, &request, now).expect("a place").prefill[0].worker.to_string()
        })
        .collect();
    assert_eq!(chosen, ["p1", "p2", "p3", "p1", "p2", "p3"]);
}

#[test]
fn a_backlog_shrinks_as_time_goes_by_but_a_silent_worker_does_not_look_idle() {
    let now = Instant::now();
    let snapshot = cluster("p1[queue=50000]", now);
    let queue_s = |age_s| {
        let later = now + Duration::from_secs(age_s);
        LeastLoad::default().place(&snapshot, &request(100), later).expect("a place").terms.queue_s
    };
    assert!((queue_s(0) - 5.0).abs() < 1e-6);
    assert!((queue_s(1) - 4.0).abs() < 1e-6);
    assert!((queue_s(60) - 4.0).abs() < 1e-6);
}

/// What a report says is added up without an end to run over: a worker that claims to be busy beyond all
/// numbers is not taken for an idle one.
#[test]
fn a_load_beyond_all_numbers_is_a_load() {
    let claimed = format!("d1[run={0} wait={0}]", u32::MAX);
    assert_eq!(decide(&format!("{claimed} d2"), 100, "never"), "d2: local-policy");
}

#[test]
fn choices_share_the_prompts_full_blocks() {
    let snapshot = cluster("d1", Instant::now());
    let one = PlacementRequest { total_tokens_max: 164, ..request(100) };
    let blocks =
        |request: &PlacementRequest<'_>, part| snapshot.workers[0].blocks_for(request, part);
    // 6 full prompt blocks and 4 tokens; with 64 more it ends in block 11.
    assert_eq!(blocks(&one, Part::Prefill), 7);
    assert_eq!(blocks(&one, Part::Both), 11);
    assert_eq!(blocks(&PlacementRequest { sequences: 3, ..one }, Part::Decode), 6 + 3 * 5);
}

#[test]
fn reports_of_another_life_or_an_earlier_moment_are_ignored() {
    let now = Instant::now();
    let mut view = cluster("d1", now).workers.remove(0);
    let life = view.info.address.incarnation;
    let report = |sequence, running| Load { sequence, running, ..Load::default() };
    view.observe(life, report(7, 1), now);
    view.observe(life, report(7, 2), now);
    view.observe(words::Incarnation(life.0 + 1), report(8, 3), now);
    assert_eq!(view.load.as_ref().map(|load| load.running), Some(1));

    let mut info = (*view.info).clone();
    info.state = NodeState::Draining;
    view.update(Arc::new(info.clone()));
    assert!(view.load.is_some());
    info.address.incarnation.0 += 1;
    view.update(Arc::new(info));
    assert_eq!((view.load, view.rates), (None, crate::cost::Rates::default()));
}

#[test]
fn a_ledger_counts_a_placement_until_a_report_shows_it_or_it_ends() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut snapshot = cluster("p1 d1", start);
    let policy = LeastLoad { handoff: HandoffPolicy::Always, ..LeastLoad::default() };
    let mut ledger = Ledger::new();
    let place = |ledger: &mut Ledger, now| {
        let placement = policy.place(&snapshot, &request(100), now).expect("a place");
        ledger.record(&placement, now)
    };
    let first = place(&mut ledger, at(0));
    let second = place(&mut ledger, at(100));
    let third = place(&mut ledger, at(200));
    let mut sequences = |ledger: &mut Ledger, reported_ms| {
        snapshot.workers.iter_mut().for_each(|view| view.reported_at = Some(at(reported_ms)));
        ledger.apply(&mut snapshot);
        let [p1, d1] = [0, 1].map(|index: usize| snapshot.workers[index].assigned);
        assert_eq!((p1.prefill_tokens, d1.prefill_tokens), (100 * u64::from(p1.sequences), 0));
        assert_eq!(p1.sequences, d1.sequences);
        p1.sequences
    };
    assert_eq!(sequences(&mut ledger, 0), 3);
    ledger.settle(second);
    assert_eq!(sequences(&mut ledger, 49), 2);
    assert_eq!(sequences(&mut ledger, 120), 1);
    ledger.settle(first);
    assert_eq!(sequences(&mut ledger, 120), 1);
    ledger.settle(third);
    assert_eq!((sequences(&mut ledger, 120), ledger.is_empty()), (0, true));
}

/// Whoever answers has the request, and its next report shows it; the other worker's may not yet.
#[test]
fn a_ledger_counts_what_a_worker_has_taken_until_its_next_report() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let mut snapshot = cluster("p1 d1", start);
    let policy = LeastLoad { handoff: HandoffPolicy::Always, ..LeastLoad::default() };
    let placement = policy.place(&snapshot, &request(100), start).expect("a place");
    let mut ledger = Ledger::new();
    let entry = ledger.record(&placement, start);
    let mut sequences = |ledger: &mut Ledger, reported_ms| {
        snapshot.workers.iter_mut().for_each(|view| view.reported_at = Some(at(reported_ms)));
        ledger.apply(&mut snapshot);
        [0, 1].map(|index: usize| snapshot.workers[index].assigned.sequences)
    };
    assert_eq!(sequences(&mut ledger, 10), [1, 1]);
    ledger.taken(&entry, &"d1".into(), at(2));
    assert_eq!(sequences(&mut ledger, 6), [1, 1]);
    assert_eq!(sequences(&mut ledger, 10), [1, 0]);
    ledger.taken(&entry, &"p1".into(), at(200));
    assert_eq!(sequences(&mut ledger, 50), [0, 0], "an answer that comes late changes nothing");
    ledger.settle(entry);
    assert!(ledger.is_empty());
}

/// Between two reports each of two routers knows only what it has sent itself, and still neither sends all of it to the worker
/// that looked idle last.
#[test]
fn two_routers_do_not_herd() {
    let now = Instant::now();
    let reported = cluster("p1 d1[run=30]", now);
    let mut sent = [0_u32; 2];
    for _ in 0..2 {
        let (mut snapshot, mut ledger, mut own) = (reported.clone(), Ledger::new(), [0; 2]);
        for _ in 0..40 {
            ledger.apply(&mut snapshot);
            let placement = LeastLoad::default().place(&snapshot, &request(100), now);
            let placement = placement.expect("a place");
            own[usize::from(placement.decode.worker == "d1".into())] += 1;
            let _entry = ledger.record(&placement, now);
        }
        assert!(own[0] > 0 && own[1] > 0, "{own:?} on p1 and d1");
        sent = [sent[0] + own[0], sent[1] + own[1]];
    }
    let (on_prefill, on_decode) = (sent[0], 30 + sent[1]);
    assert!(on_prefill <= 2 * on_decode, "{on_prefill} and {on_decode}");
}

#[rstest]
#[case::its_own("p1 d1 p2[v=2] d2[v=2]", "2", "p2 -> d2: handoff-cheaper")]
#[case::its_own_although_busier("d1 d2[v=2 run=60 step=500]", "2", "d2: prefill-pool-empty")]
#[case::a_prefill_worker_alone("d1 p2[v=2]", "2", "p2: decode-pool-empty")]
#[case::never_from_others("p1 d1", "2", "weights missing")]
#[case::it_may_come_back("p1 d1 d2[v=2 down]", "2", "no workers")]
fn a_pinned_request_goes_to(#[case] workers: &str, #[case] version: &str, #[case] want: &str) {
    assert_eq!(decide_only(workers, version), want);
}
