//! Clusters and decisions as text.
//!
//! A cluster is a list of workers: a letter for the role and a number, then what is unusual about it
//! in brackets: `run`, `wait`, `queue` (prompt tokens), `free` (blocks), `rate` (tokens per second),
//! `step` (ms), `gen` (generated on a prefill worker), `busy` (percent of its time that goes to prompts), `places` (sequences at once), `sent` (by this router: prompt tokens to a prefill worker, sequences to a decode
//! worker), `has`, `host`, `disk` (leading tokens of the prompt that it has cached, at most so far down), `v` (version of the weights), `life` (incarnation), `model`, and the words `new`, `down`, `excluded`, `reborn`
//! (its life before this one is excluded), `tiny`, `starting`, `draining`.

use words::{Capacity, Fingerprint, Incarnation, WorkerInfo};

use super::*;

/// Blocks of 16 tokens: 131,072 tokens.
const KV_BLOCKS: u32 = 8_192;

/// Tokens of output that every request may have.
const OUTPUT_TOKENS: u32 = 100;

pub(super) fn request(context_tokens: u32) -> PlacementRequest<'static> {
    PlacementRequest {
        model: "m",
        context_tokens,
        total_tokens_max: context_tokens + OUTPUT_TOKENS,
        sequences: 1,
        excluded: &[],
        fingerprint: None,
        turn: 0,
        share_ahead: 1.0,
        prompt_share_ahead: 1.0,
        is_short: false,
        notes: None,
    }
}

/// The first life of a worker.
pub(super) fn life(name: &str) -> Life {
    Life { worker: name.into(), incarnation: Incarnation(1) }
}

pub(in crate::placement) fn cluster(text: &str, now: Instant) -> ClusterSnapshot {
    ClusterSnapshot {
        workers: split(text).map(|(name, traits)| worker(name, traits, now)).collect(),
    }
}

pub(super) fn decide(workers: &str, tokens: u32, policy: &str) -> String {
    let now = Instant::now();
    let excluded: Vec<Life> = split(workers)
        .filter(|(_, traits)| traits.contains("excluded") || traits.contains("reborn"))
        .map(|(name, _)| life(name))
        .collect();
    let handoff = match policy {
        "auto" => HandoffPolicy::Auto,
        "always" => HandoffPolicy::Always,
        "never" => HandoffPolicy::Never,
        other => panic!("no policy {other}"),
    };
    let request = request(tokens).without(&excluded);
    describe(LeastLoad { handoff, ..LeastLoad::default() }.place(
        &cluster(workers, now),
        &request,
        now,
    ))
}

/// As [`decide`] by policy `auto`, for a prompt of 1,000 tokens with so many sequences.
pub(super) fn decide_wide(workers: &str, sequences: u32) -> String {
    let now = Instant::now();
    let request = PlacementRequest { sequences, ..request(1_000) };
    describe(LeastLoad::default().place(&cluster(workers, now), &request, now))
}

/// As [`decide`], only on workers with this version of the weights.
pub(super) fn decide_only(workers: &str, version: &str) -> String {
    let now = Instant::now();
    let pinned = cluster(&format!("d0[v={version}]"), now).workers[0].info.fingerprint.clone();
    let request = request(4_000).only(&pinned);
    describe(LeastLoad::default().place(&cluster(workers, now), &request, now))
}

fn describe(decision: Result<Placement, Refusal>) -> String {
    match decision {
        Ok(placement) => {
            let prefill: Vec<_> =
                placement.prefill.iter().map(|address| address.worker.to_string()).collect();
            assert_eq!(prefill.is_empty(), placement.path == Path::Local);
            let arrow = if prefill.is_empty() { "" } else { " -> " };
            let (decode, reason) = (placement.decode.worker, placement.reason.name());
            format!("{}{arrow}{decode}: {reason}", prefill.join(","))
        }
        Err(Refusal::NoWorkers) => "no workers".into(),
        Err(Refusal::ModelMissing) => "model missing".into(),
        Err(Refusal::WeightsMissing) => "weights missing".into(),
        Err(Refusal::Busy { retry_after }) => format!("busy {}ms", retry_after.as_millis()),
        Err(Refusal::TooLong { tokens, tokens_max }) => {
            format!("too long: {tokens} of {tokens_max}")
        }
        Err(Refusal::TooWide { sequences, sequences_max, .. }) => {
            format!("too wide: {sequences} of {sequences_max}")
        }
    }
}

/// `p1[run=3 new] d1` as `("p1", "run=3 new")` and `("d1", "")`.
fn split(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        let end = rest.find([' ', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let (traits, after) = match after.strip_prefix('[') {
            Some(inside) => inside.split_once(']').expect("a closing bracket"),
            None => ("", after),
        };
        rest = after.trim_start();
        (!name.is_empty()).then_some((name, traits))
    })
}

fn worker(name: &str, traits: &str, now: Instant) -> WorkerView {
    let role = if name.starts_with('p') { Role::Prefill } else { Role::Decode };
    let given = |key: &str| {
        let value = |one: &str| one.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        traits.split(' ').find_map(value)
    };
    let number = |key, usual: f64| given(key).map_or(usual, |text| text.parse().expect("a number"));
    let is = |word| traits.split(' ').any(|one| one == word);

    let info = WorkerInfo {
        address: Address {
            worker: name.into(),
            incarnation: Incarnation(if is("reborn") { 2 } else { number("life", 1.0) as u64 }),
            uri: String::new(),
        },
        role,
        state: match () {
            () if is("starting") => NodeState::Starting,
            () if is("draining") => NodeState::Draining,
            () => NodeState::Serving,
        },
        fingerprint: Fingerprint {
            model: given("model").unwrap_or_else(|| "m".into()),
            weights: given("v").unwrap_or_else(|| "1".into()),
            kv_layout: "layers=32 kv_heads=8 head_dim=128 block_tokens=16 dtype=bf16"
                .parse()
                .expect("a layout"),
            hash_version: 1,
            wire_version: 1,
        },
        capacity: Capacity {
            kv_blocks: if is("tiny") { 64 } else { KV_BLOCKS },
            block_tokens: 16,
            sequences_max: number("places", 64.0) as u32,
            queue_max: 32,
            context_tokens_max: 0,
        },
        transports: Vec::new(),
    };
    let mut view = WorkerView::new(Arc::new(info));
    view.healthy = !is("down");
    let device = number("has", 0.0) as u32;
    let host = (number("host", 0.0) as u32).max(device);
    view.cached = CachedTokens { device, host, disk: (number("disk", 0.0) as u32).max(host) };
    let sent = number("sent", 0.0) as u32;
    view.assigned = match role {
        Role::Prefill => Assigned { prefill_tokens: sent.into(), ..Assigned::default() },
        Role::Decode => Assigned { sequences: sent, ..Assigned::default() },
    };
    if is("new") {
        return view;
    }
    let load = Load {
        sequence: 1,
        running: number("run", 0.0) as u32,
        waiting: number("wait", 0.0) as u32,
        queued_prefill_tokens: number("queue", 0.0) as u64,
        free_blocks: number("free", KV_BLOCKS.into()) as u32,
        total_blocks: KV_BLOCKS,
        prefill_tokens_per_s: number("rate", 10_000.0),
        decode_step_s: number("step", 10.0) / 1_000.0,
        generating: number("gen", 0.0) as u32,
        ..Load::default()
    };
    // Enough evidence to be believed, at a batch of 1; a rate that never wavered would be no news.
    for report in 0..20 {
        let prefill_tokens_per_s = load.prefill_tokens_per_s + f64::from(report) * 1e-6;
        view.rates.observe(&Load { running: 1, prefill_tokens_per_s, ..load.clone() });
    }
    let prompts_s = number("busy", 0.0) / 100.0;
    view.rates.observe_prompts((prompts_s * load.prefill_tokens_per_s) as u64, 1.0);
    view.load = Some(load);
    view.reported_at = Some(now);
    view
}
