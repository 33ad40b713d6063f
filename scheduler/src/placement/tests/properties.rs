//! What holds for every cluster.

use super::*;

/// Any worker, as cluster text: see [`table`].
fn worker() -> impl Strategy<Value = String> {
    let traits = prop::collection::vec(
        prop_oneof![
            6 => (0_u32..100).prop_map(|run| format!("run={run}")),
            2 => (0_u32..40).prop_map(|wait| format!("wait={wait}")),
            6 => (0_u32..100_000).prop_map(|queue| format!("queue={queue}")),
            2 => (0_u32..8_192).prop_map(|free| format!("free={free}")),
            2 => (1_u32..90_000).prop_map(|rate| format!("rate={rate}")),
            2 => (1_u32..2_000).prop_map(|step| format!("step={step}")),
            2 => (0_u32..90).prop_map(|sent| format!("sent={sent}")),
            2 => (1_u32..3).prop_map(|version| format!("v={version}")),
            1 => Just("model=other".to_owned()),
            1 => prop::sample::select(vec!["new", "down", "tiny", "starting", "draining"])
                .prop_map(str::to_owned),
        ],
        0..5,
    );
    traits.prop_map(|traits| traits.join(" "))
}

/// A cluster and the workers excluded from it.
fn scene() -> impl Strategy<Value = (ClusterSnapshot, Vec<Life>)> {
    let worker = (any::<bool>(), prop::bool::weighted(0.1), worker());
    prop::collection::vec(worker, 0..10).prop_map(|workers| {
        let name = |index: usize, prefill| format!("{}{index}", if prefill { 'p' } else { 'd' });
        let texts: Vec<_> = workers
            .iter()
            .enumerate()
            .map(|(index, (prefill, _, traits))| format!("{}[{traits}]", name(index, *prefill)))
            .collect();
        let excluded = workers.iter().enumerate().filter(|(_, (_, excluded, _))| *excluded);
        let excluded =
            excluded.map(|(index, (prefill, ..))| life(&name(index, *prefill))).collect();
        (cluster(&texts.join(" "), Instant::now()), excluded)
    })
}

fn policy() -> impl Strategy<Value = LeastLoad> {
    prop::sample::select(vec![HandoffPolicy::Auto, HandoffPolicy::Always, HandoffPolicy::Never])
        .prop_map(|handoff| LeastLoad { handoff, ..LeastLoad::default() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn only_workers_that_can_serve_are_chosen(
        (snapshot, excluded) in scene(),
        policy in policy(),
        tokens in 1_u32..140_000,
        turn: u64,
    ) {
        let request = PlacementRequest { turn, ..request(tokens) }.without(&excluded);
        let Ok(placement) = policy.place(&snapshot, &request, Instant::now()) else { return Ok(()) };
        let view = |address: &Address| {
            snapshot.workers.iter().find(|view| view.info.address == *address).expect("known")
        };
        let decode = view(&placement.decode);
        for address in placement.prefill.iter().chain([&placement.decode]) {
            let chosen = view(address);
            prop_assert!(chosen.healthy && chosen.info.state == NodeState::Serving);
            prop_assert!(!excluded.contains(&address.life()));
            prop_assert_eq!(&chosen.info.fingerprint.model, "m");
            prop_assert_eq!(&chosen.info.fingerprint, &decode.info.fingerprint);
        }
        for address in &placement.prefill {
            prop_assert_eq!(view(address).info.role, Role::Prefill);
            prop_assert_ne!(address, &placement.decode);
        }
        prop_assert!(decode.tokens_max() >= request.total_tokens_max);
        prop_assert!(placement.estimated_ttft_s.is_finite() && placement.estimated_ttft_s >= 0.0);
        prop_assert_eq!(placement.path == Path::Local, placement.prefill.is_empty());
        prop_assert_eq!(placement.work.len(), if placement.path == Path::Local { 1 } else { 2 });
    }

    #[test]
    fn a_refusal_is_true(
        (snapshot, excluded) in scene(),
        policy in policy(),
        tokens in 1_u32..140_000,
    ) {
        let request = request(tokens).without(&excluded);
        let willing = || {
            snapshot.workers.iter().filter(|view| {
                view.healthy
                    && view.info.state == NodeState::Serving
                    && view.info.fingerprint.model == "m"
                    && !excluded.contains(&view.info.address.life())
            })
        };
        match policy.place(&snapshot, &request, Instant::now()) {
            Ok(_) => prop_assert!(willing().next().is_some()),
            Err(Refusal::NoWorkers | Refusal::ModelMissing) => prop_assert_eq!(willing().count(), 0),
            Err(Refusal::WeightsMissing) => prop_assert!(false, "no weights were asked for"),
            Err(Refusal::TooWide { .. }) => prop_assert!(false, "one sequence is not too wide"),
            Err(Refusal::TooLong { .. }) => {
                let fits = |view: &&WorkerView| view.could_hold(&request, Part::Both);
                let decode_fits = willing().filter(fits).any(|view| view.info.role == Role::Decode);
                prop_assert!(!decode_fits, "a decode worker could have held it");
            }
            Err(Refusal::Busy { retry_after }) => {
                prop_assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(60));
                let loaded = |view: &WorkerView| {
                    let load = view.load.as_ref().map_or(0, |load| load.running + load.waiting);
                    load + view.assigned.sequences >= 96
                };
                prop_assert!(willing().any(loaded), "nobody is full");
            }
        }
    }

    #[test]
    fn equal_workers_share_equal_requests_evenly(
        (prefill, decode) in (1_usize..6, 1_usize..6),
        requests in 1_u64..60,
        first_turn in 0_u64..1_000,
        handoff in prop::sample::select(vec![HandoffPolicy::Always, HandoffPolicy::Never]),
        gap_ms in 0_u64..40,
    ) {
        let names = |letter: char, count| (0..count).map(move |index| format!("{letter}{index} "));
        let text: String = names('p', prefill).chain(names('d', decode)).collect();
        let start = Instant::now();
        let mut snapshot = cluster(&text, start);
        let mut ledger = Ledger::new();
        for number in 0..requests {
            let now = start + Duration::from_millis(number * gap_ms);
            ledger.apply(&mut snapshot);
            let request = PlacementRequest { turn: first_turn + number, ..request(50) };
            let placement = LeastLoad { handoff, ..LeastLoad::default() }.place(&snapshot, &request, now).expect("a place");
            let _entry = ledger.record(&placement, now);
        }
        ledger.apply(&mut snapshot);
        for role in [Role::Prefill, Role::Decode] {
            let of_role = || snapshot.workers.iter().filter(move |view| view.info.role == role);
            let counts = || of_role().map(|view| view.assigned.sequences);
            let (most, least) = (counts().max().expect("one"), counts().min().expect("one"));
            prop_assert!(most - least <= 1, "{role}: {:?}", counts().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_decision_is_a_function_of_its_arguments(
        (snapshot, excluded) in scene(),
        policy in policy(),
        tokens in 1_u32..20_000,
        turn: u64,
    ) {
        let now = Instant::now();
        let request = PlacementRequest { turn, ..request(tokens) }.without(&excluded);
        prop_assert_eq!(policy.place(&snapshot, &request, now), policy.place(&snapshot, &request, now));
    }

    #[test]
    fn a_ledger_never_counts_less_than_is_under_way(
        steps in prop::collection::vec((0_u8..4, 0_usize..8), 1..80),
    ) {
        let start = Instant::now();
        let mut snapshot = cluster("d1", start);
        let mut ledger = Ledger::new();
        let mut open = Vec::new();
        let mut hidden = Vec::new();
        for (index, (step, at)) in steps.into_iter().enumerate() {
            let now = start + Duration::from_millis(10 * index as u64);
            match step {
                0 => {
                    let placed = LeastLoad::default().place(&snapshot, &request(10), now);
                    let Ok(placement) = placed else { continue };
                    open.push((index, ledger.record(&placement, now)));
                    hidden.push((index, now + Duration::from_millis(50)));
                }
                1 if !open.is_empty() => {
                    let (number, entry) = open.swap_remove(at % open.len());
                    hidden.retain(|(other, _)| *other != number);
                    ledger.settle(entry);
                }
                2 if !open.is_empty() => {
                    let (number, entry) = &open[at % open.len()];
                    ledger.taken(entry, &"d1".into(), now);
                    let taken = hidden.iter_mut().filter(|(other, _)| other == number);
                    taken.for_each(|(_, shown)| *shown = (now + Duration::from_millis(5)).min(*shown));
                }
                _ => {
                    snapshot.workers[0].reported_at = Some(now);
                    hidden.retain(|(_, shown)| *shown > now);
                }
            }
            ledger.apply(&mut snapshot);
            prop_assert_eq!(snapshot.workers[0].assigned.sequences as usize, hidden.len());
        }
        open.into_iter().for_each(|(_, entry)| ledger.settle(entry));
        prop_assert!(ledger.is_empty());
    }
}
