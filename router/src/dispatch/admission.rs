//! Who is let in, by this router's targets and its clients' shares; and who stays in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use cluster::ErrorCode;
use cluster::telemetry::Metrics;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use scheduler::admission::{self, Target};
use scheduler::{ClientId, Forecast, PlacementRequest, SloTargets, Turns};

use super::DispatchError;

/// What admission needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// What a request that is let in may expect.
    pub targets: SloTargets,
    /// How long a client may take nothing of what is ready for it.
    pub reader_timeout: Duration,
}

/// Decides for one router.
pub(super) struct Admission {
    config: AdmissionConfig,
    turns: Mutex<Turns>,
    refused: AtomicU64,
    refusals: Family<TargetLabels, Counter>,
    readers_cut: Counter,
}

/// A request among its client's, from its placement to its end.
pub(super) struct Turn {
    admission: Arc<Admission>,
    client: ClientId,
    started: AtomicBool,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TargetLabels {
    target: &'static str,
}

// === impl AdmissionConfig ===

impl Default for AdmissionConfig {
    fn default() -> Self {
        Self { targets: SloTargets::default(), reader_timeout: Duration::from_secs(30) }
    }
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(config: AdmissionConfig, metrics: &Metrics) -> Self {
        Self {
            config,
            turns: Mutex::default(),
            refused: AtomicU64::new(0),
            refusals: metrics.counters(
                "baton_admission_refusals",
                "Requests refused because they would have missed a target, by target",
            ),
            readers_cut: metrics
                .counter("baton_readers_cut", "Requests ended because their clients did not read"),
        }
    }

    /// `request`, as one of `client`'s.
    pub(super) fn of<'a>(
        &self,
        request: PlacementRequest<'a>,
        client: ClientId,
    ) -> PlacementRequest<'a> {
        request.of(client, &self.turns.lock())
    }

    /// Holds a request to the targets.
    pub(super) fn judge(&self, forecast: &Forecast) -> Result<(), DispatchError> {
        let late = match admission::decide(forecast, &self.config.targets) {
            Ok(()) => return Ok(()),
            Err(late) => late,
        };
        let (target, missed) = match late.target {
            Target::Ttft => ("ttft", "the first token would come too late"),
            Target::Tpot => ("tpot", "tokens would come too slowly"),
        };
        self.refusals.get_or_create(&TargetLabels { target }).inc();
        let turn = self.refused.fetch_add(1, Ordering::Relaxed);
        let retry_after = admission::retry_after(late.room_in_s, turn);
        let message = format!(
            "the cluster is busy: {missed}; try again in {:.1} s",
            retry_after.as_secs_f64()
        );
        Err(DispatchError { code: ErrorCode::Busy, message, retry_after: Some(retry_after) })
    }

    /// Until work on a request with this forecast has to begin.
    pub(super) fn start_within(&self, forecast: &Forecast) -> Duration {
        admission::start_within(forecast, &self.config.targets)
    }

    pub(super) fn reader_timeout(&self) -> Duration {
        self.config.reader_timeout
    }

    /// A client has read nothing for too long.
    pub(super) fn reader_cut(&self) {
        self.readers_cut.inc();
    }

    /// A request of `client` was placed.
    pub(super) fn begin(self: &Arc<Self>, client: ClientId) -> Turn {
        self.turns.lock().begin(client);
        Turn { admission: self.clone(), client, started: AtomicBool::new(false) }
    }
}

// === impl Turn ===

impl Turn {
    /// The request waits no longer.
    pub(super) fn start(&self) {
        if !self.started.swap(true, Ordering::Relaxed) {
            self.admission.turns.lock().start(self.client);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let started = *self.started.get_mut();
        self.admission.turns.lock().end(self.client, started);
    }
}
