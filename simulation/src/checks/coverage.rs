//! What runs came through: what went wrong in them, and which ways their requests took.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::telemetry::Metrics;
use parking_lot::Mutex;

/// Ways that a node's counters tell of: what it is called here, and the series that counts it.
const COUNTED: &[(&str, &str)] = &[
    ("hand-off", "baton_handoff_completed_total"),
    ("hand-off that failed", "baton_handoff_attempts_failed_total"),
    ("prompt computed here after a hand-off failed", "baton_handoff_local_fallbacks_total"),
    ("prompt computed here for want of a prefill worker", "baton_placements_total{path=\"local\""),
    ("prefix found in a cache", "baton_prefix_cached_tokens_total"),
    ("preemption", "baton_preemptions_total"),
    ("damaged message refused", "baton_damaged_messages_total"),
    ("request moved to another worker", "baton_legs_lost_total"),
    ("refusal for want of workers", "baton_placement_refusals_total{reason=\"no-workers\""),
    ("refusal for want of room", "baton_placement_refusals_total{reason=\"busy\""),
    ("refusal for missing a target", "baton_admission_refusals_total"),
];

/// Ways that are counted where they are taken.
const TAKEN: &[&str] = &[
    "answer to its end",
    "client gone before its first token",
    "client gone in the middle",
    "deadline passed",
    "several choices",
    "logprobs",
    "prompt scored",
    "answer in several parts",
    "router lost with its requests",
    "worker drained",
    "router drained",
    "lease expired",
    "hand-off message lost",
    "hand-off message doubled",
    "hand-off message damaged",
    "hand-off message held up",
    "segment lost",
    "segment flipped",
    "connection refused",
    "connection reset",
];

/// What strangers hear.
const STRANGERS: &[&str] = &[
    "a caller without TLS: Internal",
    "a caller without a certificate: Unknown",
    "a client: PermissionDenied",
    "another authority's router: Unknown",
    "another cluster's router: PermissionDenied",
    "a router node: PermissionDenied",
    "a prefill node: PermissionDenied",
    "a decode node: PermissionDenied",
    "an impostor: called",
];

/// What goes wrong with every kind of node.
const NODE_TROUBLES: &[&str] = &["kill", "clock", "dark", "stop", "isolate", "cut", "bad way"];

/// What a run came through, and how often. A clone is another handle to the same.
#[derive(Clone, Default)]
pub struct Coverage(Arc<Mutex<BTreeMap<String, u64>>>);

// === impl Coverage ===

impl Coverage {
    /// Something was come through.
    pub fn reached(&self, what: impl Into<String>) {
        self.add(what, 1);
    }

    /// Something was come through so many times.
    pub fn add(&self, what: impl Into<String>, times: u64) {
        if times > 0 {
            *self.0.lock().entry(what.into()).or_default() += times;
        }
    }

    /// Adds what a node has counted until its end.
    pub fn take_up(&self, metrics: &Metrics) {
        let text = metrics.encode();
        for (what, series) in COUNTED {
            let counts = text.lines().filter(|line| line.starts_with(series));
            let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            self.add(*what, counts.sum::<f64>() as u64);
        }
    }

    /// All of it.
    #[must_use]
    pub fn counted(&self) -> BTreeMap<String, u64> {
        self.0.lock().clone()
    }
}

/// What some of enough seeds come through. What none does is a hole in the plans.
#[must_use]
pub fn wanted() -> Vec<String> {
    let counted = COUNTED.iter().map(|(what, _)| *what).chain(TAKEN.iter().copied());
    let parts = ["etcd", "router", "prefill", "decode"];
    let troubles =
        parts.iter().flat_map(|part| NODE_TROUBLES.iter().map(move |it| format!("{it}: {part}")));
    let others = ["leave: router", "leave: prefill", "leave: decode", "new weights: prefill"];
    let more = ["new weights: decode", "wipe: etcd", "restore: etcd"];
    let troubles = troubles.chain(others.into_iter().chain(more).map(str::to_owned));
    let strangers = STRANGERS.iter().map(|it| format!("stranger, {it}"));
    counted.map(str::to_owned).chain(troubles).chain(strangers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_counters_are_taken_up_by_what_they_count() {
        let (metrics, coverage) = (Metrics::new(), Coverage::default());
        metrics.counter("baton_preemptions", "of sequences").inc_by(3);
        let _ = metrics.counter("baton_handoff_completed", "hand-offs");
        coverage.take_up(&metrics);
        assert_eq!(coverage.counted(), BTreeMap::from([("preemption".to_owned(), 3)]));
    }

    #[test]
    fn nothing_is_wanted_twice() {
        let mut wanted = wanted();
        let count = wanted.len();
        wanted.sort_unstable();
        wanted.dedup();
        assert_eq!(wanted.len(), count);
    }
}
