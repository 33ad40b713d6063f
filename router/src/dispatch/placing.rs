//! Where requests go: the cluster as this router sees it, and what it has sent there itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::clock;
use cluster::rpc::Channels;
use cluster::telemetry::Metrics;
use cluster::{ErrorCode, LoadWatcher};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use scheduler::placement::Entry;
use scheduler::{
    Address, ClusterSnapshot, Generation, Ledger, Life, Placement, PlacementRequest, Placer,
    Refusal, Role, WorkerView,
};
use tonic::transport::Channel;

use super::dispatcher::DispatcherConfig;
use super::{DispatchError, Readiness};

/// When to come back to a cluster that has no worker: about when a worker that restarts reports.
const NO_WORKER_RETRY: Duration = Duration::from_secs(5);

/// The router's picture of the cluster, and its decisions.
pub(super) struct Placing {
    model: String,
    loads: LoadWatcher,
    placer: Box<dyn Placer>,
    ledger: Mutex<Ledger>,
    channels: Channels,
    turn: AtomicU64,
    metrics: PlacingMetrics,
}

/// A placement's entry in the ledger; struck out when dropped.
pub(super) struct Intent<'a> {
    placing: &'a Placing,
    entry: Option<Entry>,
}

struct PlacingMetrics {
    decisions: Family<DecisionLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    workers_lost: Family<LostLabels, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabels {
    path: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LostLabels {
    code: String,
}

// === impl Placing ===

impl Placing {
    pub(super) fn new(config: DispatcherConfig, metrics: &Metrics) -> Self {
        let DispatcherConfig { model, loads, placer, channels } = config;
        let metrics = PlacingMetrics::new(metrics);
        let (ledger, turn) = (Mutex::default(), AtomicU64::new(0));
        Self { model, loads, placer, ledger, channels, turn, metrics }
    }

    /// Places `generation`, not on `excluded`.
    pub(super) fn place(
        &self,
        generation: &Generation,
        excluded: &[Life],
    ) -> Result<Placement, DispatchError> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let request = PlacementRequest::new(&self.model, generation, turn).without(excluded);
        let placed = self.placer.place(&self.snapshot(), &request, clock::now());
        match &placed {
            Ok(placement) => self.metrics.decided(placement),
            Err(refusal) => self.metrics.refused(*refusal),
        }
        placed.map_err(DispatchError::from)
    }

    /// Writes a placement down for as long as the request is there.
    pub(super) fn intend(&self, placement: &Placement) -> Intent<'_> {
        let entry = self.ledger.lock().record(placement, clock::now());
        Intent { placing: self, entry: Some(entry) }
    }

    /// A worker failed a request.
    pub(super) fn lost(&self, code: ErrorCode) {
        self.metrics.workers_lost.get_or_create(&LostLabels { code: format!("{code:?}") }).inc();
    }

    pub(super) fn channel(&self, address: &Address) -> Channel {
        self.channels.get(address)
    }

    pub(super) fn readiness(&self) -> Readiness {
        let snapshot = self.loads.snapshot();
        let serving = |role: Role| {
            let takes_work =
                |worker: &&WorkerView| worker.healthy && worker.info.state.takes_work();
            snapshot.workers.iter().filter(takes_work).filter(|w| w.info.role == role).count()
                as u32
        };
        let workers = [Role::Prefill, Role::Decode].map(|role| (role, serving(role)));
        let missing = workers.iter().filter(|(_, count)| *count == 0);
        let reasons = missing.map(|(role, _)| format!("no {role} worker is serving")).collect();
        let ready = workers.iter().any(|(_, count)| *count > 0);
        Readiness { ready, workers: workers.into(), reasons }
    }

    /// The cluster as reported, with what this router has sent there since.
    fn snapshot(&self) -> ClusterSnapshot {
        let mut snapshot = ClusterSnapshot::clone(&self.loads.snapshot());
        self.ledger.lock().apply(&mut snapshot);
        snapshot
    }
}

// === impl Intent ===

impl Drop for Intent<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.placing.ledger.lock().settle(entry);
        }
    }
}

// === impl PlacingMetrics ===

impl PlacingMetrics {
    fn new(metrics: &Metrics) -> Self {
        Self {
            decisions: metrics.counters("baton_placements", "Requests placed, by path and reason"),
            refusals: metrics
                .counters("baton_placement_refusals", "Requests placed nowhere, by reason"),
            workers_lost: metrics
                .counters("baton_legs_lost", "Streams from workers that broke, by error"),
        }
    }

    fn decided(&self, placement: &Placement) {
        let (path, reason) = (placement.path.name(), placement.reason.name());
        self.decisions.get_or_create(&DecisionLabels { path, reason }).inc();
    }

    fn refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::NoWorkers => "no-workers",
            Refusal::ModelMissing => "model-missing",
            Refusal::Busy { .. } => "busy",
            Refusal::TooLong { .. } => "too-long",
        };
        self.refusals.get_or_create(&RefusalLabels { reason }).inc();
    }
}

// === impl DispatchError ===

impl From<Refusal> for DispatchError {
    fn from(refusal: Refusal) -> Self {
        let (code, retry_after) = match refusal {
            Refusal::NoWorkers | Refusal::ModelMissing => {
                (ErrorCode::Unavailable, Some(NO_WORKER_RETRY))
            }
            Refusal::Busy { retry_after } => (ErrorCode::Busy, Some(retry_after)),
            Refusal::TooLong { .. } => (ErrorCode::InvalidRequest, None),
        };
        Self { code, message: refusal.to_string(), retry_after }
    }
}
