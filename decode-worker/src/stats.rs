//! Hand-offs as the decode worker sees them.

use std::time::Duration;

use cluster::telemetry::{Buckets, Metrics};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

/// Counts hand-offs and their time.
#[derive(Clone, Debug)]
pub(crate) struct HandoffStats {
    completed: Counter,
    attempts_failed: Counter,
    local_fallbacks: Counter,
    bytes: Counter,
    duration_seconds: Histogram,
}

// === impl HandoffStats ===

impl HandoffStats {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            completed: metrics.counter("baton_handoff_completed", "Hand-offs verified"),
            attempts_failed: metrics.counter(
                "baton_handoff_attempts_failed",
                "Attempts that ended without a verified hand-off",
            ),
            local_fallbacks: metrics.counter(
                "baton_handoff_local_fallbacks",
                "Requests whose prompt was computed here because every prefill peer failed",
            ),
            bytes: metrics.counter("baton_handoff_bytes", "KV bytes of verified hand-offs"),
            duration_seconds: metrics.histogram(
                "baton_handoff_duration_seconds",
                "From the wait for a credit to the verified commit, the prompt's computation included",
                Buckets::TTFT_S,
            ),
        }
    }

    pub(crate) fn handed_over(&self, duration: Duration, bytes: u64) {
        self.completed.inc();
        self.bytes.inc_by(bytes);
        self.duration_seconds.observe(duration.as_secs_f64());
    }

    pub(crate) fn attempt_failed(&self) {
        self.attempts_failed.inc();
    }

    pub(crate) fn fell_back_to_local(&self) {
        self.local_fallbacks.inc();
    }
}
