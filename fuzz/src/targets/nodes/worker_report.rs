//! What workers report, and where requests are placed by it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message as _;
use proto::v1;
use scheduler::{ClusterSnapshot, LeastLoad, PlacementRequest, Placer as _, Refusal, WorkerView};
use words::{Address, Incarnation, Load, NodeState, Role};

use crate::Target;
use crate::fixtures::worker::worker;
use crate::words::{joined, messages};

pub(in crate::targets) const TARGET: Target = Target::new("worker_report", run).with_seeds(seeds);

/// Takes reports as on the wire, each of a worker of its own, or of the last one that said who it is.
fn run(input: &[u8]) {
    let now = Instant::now();
    let mut cluster = ClusterSnapshot::default();
    for message in messages(input) {
        let Ok(mut report) = v1::LoadReport::decode(message) else { continue };
        if let Some(info) = report.worker.take() {
            cluster.workers.extend(check_info(info).map(WorkerView::new));
        }
        let Some((_, load)) = check(&report) else { continue };
        if let Some(worker) = cluster.workers.last_mut() {
            worker.observe(Incarnation(report.incarnation), load, now);
        }
    }
    for (context_tokens, total_tokens_max) in [(9, 20), (u32::MAX - 1, u32::MAX)] {
        place(&cluster, context_tokens, total_tokens_max, now);
    }
}

fn check(report: &v1::LoadReport) -> Option<(NodeState, Load)> {
    let (state, load) =
        report.parts().inspect_err(|error| assert!(!error.field.is_empty())).ok()?;
    assert!(load.free_blocks <= load.total_blocks, "{load:?}");
    for measured in [load.prefill_tokens_per_s, load.decode_step_s, load.output_tokens] {
        assert!(measured.is_finite() && measured >= 0.0, "{load:?}");
    }
    let again = v1::LoadReport::new(Incarnation(report.incarnation), state, &load);
    assert_eq!(again.parts().as_ref(), Ok(&(state, load.clone())));
    Some((state, load))
}

fn check_info(wire: v1::WorkerInfo) -> Option<Arc<words::WorkerInfo>> {
    let namespace = wire.namespace.clone();
    let info = wire.info(NodeState::Serving).inspect_err(|error| assert!(!error.field.is_empty()));
    let info = info.ok()?;
    let again = v1::WorkerInfo::new(&namespace, &info);
    assert_eq!(again.info(NodeState::Serving).as_ref(), Ok(&info));
    Some(Arc::new(info))
}

fn place(cluster: &ClusterSnapshot, context_tokens: u32, total_tokens_max: u32, now: Instant) {
    let request = PlacementRequest {
        model: "m",
        context_tokens,
        total_tokens_max,
        sequences: 3,
        excluded: &[],
        fingerprint: None,
        turn: 1,
        share_ahead: 0.5,
        prompt_share_ahead: 0.5,
        is_short: false,
        notes: None,
    };
    match LeastLoad::default().place(cluster, &request, now) {
        Ok(placement) => {
            let known = |address: &Address| {
                cluster.workers.iter().any(|view| view.info.address == *address)
            };
            assert!(
                known(&placement.decode) && placement.prefill.iter().all(known),
                "{placement:?}"
            );
        }
        // A client is told to come back, and not in a thousand years.
        Err(Refusal::Busy { retry_after }) => {
            assert!(retry_after <= Duration::from_secs(86_400), "{retry_after:?}");
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let report = |role, name: &str, load: &Load| {
        let mut report = v1::LoadReport::new(Incarnation(7), NodeState::Serving, load);
        report.worker = Some(v1::WorkerInfo::new("ns", &worker(role, name)));
        report.encode_to_vec()
    };
    let idle = Load { sequence: 1, free_blocks: 60, total_blocks: 64, ..Load::default() };
    let busy = Load {
        running: 8,
        waiting: 8,
        queued_prefill_tokens: 900,
        context_tokens: 400,
        free_blocks: 3,
        prefill_tokens_per_s: 1000.0,
        decode_step_s: 0.01,
        output_tokens: 50.0,
        promised_blocks: 2,
        wanted_blocks: 9,
        generating: 5,
        prefill_tokens: 70_000,
        ..idle.clone()
    };
    let (prefill, decode) = (report(Role::Prefill, "p0", &idle), report(Role::Decode, "d0", &idle));
    let late = v1::LoadReport::new(
        Incarnation(7),
        NodeState::Draining,
        &Load { sequence: 2, ..busy.clone() },
    );
    vec![
        joined([prefill, decode.clone()]),
        joined([report(Role::Prefill, "p0", &busy), report(Role::Decode, "d0", &busy)]),
        joined([decode, late.encode_to_vec()]),
    ]
}
