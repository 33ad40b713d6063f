//! What a placement costs a router's core, ledger included.
//!
//! Floor: every worker's view (some 400 bytes) is read once from cache and judged in two parts, at
//! about 30 divisions each: 0.1 us a worker. The best routers spend 160 us of a core on a whole
//! request, so a decision over 64 workers should stay below a tenth of that.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use scheduler::{ClusterSnapshot, LeastLoad, Ledger, PlacementRequest, Placer, WorkerView};
use words::{Address, Capacity, Fingerprint, Incarnation, Load, NodeState, Role, WorkerInfo};

fn worker(index: u32, now: Instant) -> WorkerView {
    let role = if index.is_multiple_of(2) { Role::Prefill } else { Role::Decode };
    let info = WorkerInfo {
        address: Address {
            worker: format!("{role}-{index}").as_str().into(),
            incarnation: Incarnation(1),
            uri: format!("http://10.0.0.{index}:8001"),
        },
        role,
        state: NodeState::Serving,
        fingerprint: Fingerprint {
            model: "model".into(),
            weights: "0123456789abcdef".repeat(4),
            kv_layout: "layers=32 kv_heads=8 head_dim=128 block_tokens=16 dtype=bf16"
                .parse()
                .expect("a layout"),
            hash_version: 1,
            wire_version: 1,
        },
        capacity: Capacity {
            kv_blocks: 32_768,
            block_tokens: 16,
            sequences_max: 256,
            queue_max: 256,
            context_tokens_max: 131_072,
        },
        transports: Vec::new(),
    };
    let mut view = WorkerView::new(Arc::new(info));
    let load = Load {
        sequence: 1,
        running: 30 + index % 7,
        queued_prefill_tokens: 1_000 * u64::from(index % 5),
        free_blocks: 20_000,
        total_blocks: 32_768,
        prefill_tokens_per_s: 40_000.0,
        decode_step_s: 0.007,
        ..Load::default()
    };
    view.observe(Incarnation(1), load, now);
    view
}

fn place(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("place among workers");
    for workers in [2_u32, 16, 64, 256] {
        let now = Instant::now();
        let mut snapshot =
            ClusterSnapshot { workers: (0..workers).map(|index| worker(index, now)).collect() };
        let mut ledger = Ledger::new();
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(workers), |bench| {
            bench.iter(|| {
                turn += 1;
                let request = PlacementRequest {
                    model: "model",
                    context_tokens: 2_000,
                    total_tokens_max: 2_200,
                    sequences: 1,
                    excluded: &[],
                    fingerprint: None,
                    turn,
                    share_ahead: 1.0,
                    prompt_share_ahead: 1.0,
                    is_short: false,
                    notes: None,
                };
                ledger.apply(&mut snapshot);
                let placement = LeastLoad::default().place(&snapshot, &request, now).expect("room");
                let entry = ledger.record(black_box(&placement), now);
                ledger.settle(entry);
            });
        });
    }
}

criterion_group!(benches, place);
criterion_main!(benches);
