//! Where requests go: the cluster as this router sees it, and what it has sent there itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::clock;
use cluster::rpc::Channels;
use cluster::telemetry::Metrics;
use cluster::{ErrorCode, LoadWatcher, Shortage};
use kv_cache::BlockHash;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use scheduler::placement::LedgerEntry;
use scheduler::{ClusterSnapshot, Ledger, Notes, Placement, PlacementRequest, Placer, Refusal};
use tonic::Status;
use tonic::transport::Channel;
use words::{Address, ClientId, Fingerprint, Generation, Life, Role, WorkerId};

use super::admission::Admission;
use super::names::names;
use super::rollout::Rollout;
use super::{
    AdmissionConfig, DispatchError, Explained, Explanation, Readiness, explanation, remarks,
};

/// When to come back to a cluster that has no worker: about when a worker that restarts reports.
const NO_WORKER_RETRY: Duration = Duration::from_secs(5);

/// The longest that a prompt which was sent is thought to be on its way to a cache.
const EXPECTED_S_MAX: f64 = 30.0;

/// From when a prompt is computed until its worker has told that it is cached: some reports.
const REPORTED_WITHIN: Duration = Duration::from_secs(1);

/// What a dispatcher is made of.
pub struct DispatcherConfig {
    /// The model's name, as its workers publish it.
    pub model: String,
    /// The cluster, as it reports.
    pub loads: LoadWatcher,
    /// The weights that new requests go to, by the beginning of their digest or of their
    /// fingerprint's name; `None`: the newest that enough workers have.
    pub fingerprint: Option<String>,
    /// Chooses workers.
    pub placer: Box<dyn Placer>,
    /// Connections to workers.
    pub channels: Channels,
    /// Who is let in.
    pub admission: AdmissionConfig,
}

/// The router's picture of the cluster, and its decisions.
pub(super) struct Placing {
    model: String,
    loads: LoadWatcher,
    rollout: Rollout,
    placer: Box<dyn Placer>,
    ledger: Mutex<Ledger>,
    channels: Channels,
    turn: AtomicU64,
    metrics: PlacingMetrics,
    /// Who is let in.
    pub(super) admission: Arc<Admission>,
}

/// A placement's entry in the ledger; struck out when dropped.
pub(super) struct Intent<'a> {
    placing: &'a Placing,
    entry: Option<LedgerEntry>,
}

/// Where a request would go.
struct Placed {
    placement: Placement,
    /// Of its prompt's blocks, where anybody knows who has them.
    names: Option<Arc<[BlockHash]>>,
}

struct PlacingMetrics {
    decisions: Family<DecisionLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    full: Family<FullLabels, Counter>,
    cached_expected: Counter,
    cached_found: Counter,
    workers_lost: Family<LostLabels, Counter>,
    fingerprint_workers: Family<FingerprintLabels, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FingerprintLabels {
    fingerprint: String,
    role: &'static str,
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
struct FullLabels {
    short: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LostLabels {
    code: String,
}

// === impl Placing ===

impl Placing {
    pub(super) fn new(config: DispatcherConfig, metrics: &Metrics) -> Self {
        let DispatcherConfig { model, loads, fingerprint, placer, channels, admission } = config;
        let admission = Arc::new(Admission::new(admission, metrics));
        let rollout = Rollout::new(model.clone(), fingerprint);
        let metrics = PlacingMetrics::new(metrics);
        let (ledger, turn) = (Mutex::default(), AtomicU64::new(0));
        Self { model, loads, rollout, placer, ledger, channels, turn, metrics, admission }
    }

    /// Places a new request, if it is likely to meet the targets.
    pub(super) fn admit(
        &self,
        generation: &Generation,
        bound: Option<&Fingerprint>,
        explanation: Option<&Explanation>,
    ) -> Result<Placement, DispatchError> {
        let placed = self.find(generation, bound, &[], explanation)?;
        let judged = self.admission.judge(&placed.placement.forecast);
        explanation::tell_refusal(&judged, explanation);
        judged.map(|()| self.sent(placed))
    }

    /// Where a request would go now, and all that was considered. Counts as no decision.
    pub(super) fn explain(&self, generation: &Generation) -> Explained {
        let notes = Notes::default();
        let turn = self.turn.load(Ordering::Relaxed);
        let request = PlacementRequest::new(&self.model, generation, turn);
        let request = self.admission.of(request, generation.client).noted(Some(&notes));
        let decision = match self.choose(request, Some(generation), None) {
            Ok(Placed { placement, .. }) => {
                self.admission.would_judge(&placement.forecast).map(|()| placement)
            }
            Err(refusal) => Err(refusal.into()),
        };
        Explained { decision, candidates: notes.candidates() }
    }

    /// Refuses a client whose smallest request would be refused.
    pub(super) fn foresee(
        &self,
        client: ClientId,
        explanation: Option<&Explanation>,
    ) -> Result<(), DispatchError> {
        let notes = explanation.map(|_| Notes::default());
        let request = PlacementRequest::smallest(&self.model, self.next_turn());
        let request = self.admission.of(request, client).noted(notes.as_ref());
        let decision = self.choose(request, None, None);
        let decision =
            decision.as_ref().map(|placed| &placed.placement).map_err(|refusal| *refusal);
        let judged = match &decision {
            Ok(placement) => self.admission.judge(&placement.forecast),
            Err(refusal) => Err(self.refused(*refusal)),
        };
        if judged.is_err() {
            explanation::tell(notes.as_ref(), &decision, explanation);
            explanation::tell_refusal(&judged, explanation);
        }
        judged
    }

    /// Places `generation`: where its answer is `bound` to or, if it isn't yet, where new requests
    /// go; not on `excluded`.
    pub(super) fn place(
        &self,
        generation: &Generation,
        bound: Option<&Fingerprint>,
        excluded: &[Life],
        explanation: Option<&Explanation>,
    ) -> Result<Placement, DispatchError> {
        self.find(generation, bound, excluded, explanation).map(|placed| self.sent(placed))
    }

    fn find(
        &self,
        generation: &Generation,
        bound: Option<&Fingerprint>,
        excluded: &[Life],
        explanation: Option<&Explanation>,
    ) -> Result<Placed, DispatchError> {
        let notes = explanation::notes(explanation);
        let request = PlacementRequest::new(&self.model, generation, self.next_turn());
        let request = self.admission.of(request, generation.client).without(excluded);
        let decision = self.choose(request.noted(notes.as_ref()), Some(generation), bound);
        let told = decision.as_ref().map(|placed| &placed.placement).map_err(|refusal| *refusal);
        explanation::tell(notes.as_ref(), &told, explanation);
        let placed = decision.map_err(|refusal| self.refused(refusal))?;
        self.metrics.decided(&placed.placement);
        Ok(placed)
    }

    /// The request goes there: whoever computes its prompt will have it cached, and whoever generates, too.
    fn sent(&self, Placed { placement, names }: Placed) -> Placement {
        if let (Some(prefixes), Some(names)) = (self.loads.prefixes(), names) {
            let until_told =
                Duration::from_secs_f64(placement.estimated_ttft_s.clamp(0.0, EXPECTED_S_MAX));
            let computes = placement.prefill.first();
            for address in computes.into_iter().chain([&placement.decode]) {
                prefixes.expect(
                    &address.life(),
                    &names,
                    clock::now(),
                    until_told + REPORTED_WITHIN,
                );
            }
        }
        placement
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn refused(&self, refusal: Refusal) -> DispatchError {
        self.metrics.refused(refusal);
        refusal.into()
    }

    fn choose(
        &self,
        request: PlacementRequest<'_>,
        generation: Option<&Generation>,
        bound: Option<&Fingerprint>,
    ) -> Result<Placed, Refusal> {
        let mut snapshot = self.snapshot();
        let present;
        let fingerprint = match bound {
            Some(bound) => Some(bound),
            None => {
                present = self.rollout.choose(&snapshot)?;
                present.as_ref()
            }
        };
        let now = clock::now();
        let prefixes = self.loads.prefixes();
        let named = prefixes.and(generation).zip(fingerprint);
        let names = named.and_then(|(generation, fingerprint)| names(generation, fingerprint));
        if let (Some(prefixes), Some(names), Some(fingerprint)) = (prefixes, &names, fingerprint) {
            prefixes.apply(names, fingerprint.kv_layout.block_tokens(), &mut snapshot, now);
        }
        let request = PlacementRequest { fingerprint, ..request };
        let placement = self.placer.place(&snapshot, &request, now)?;
        Ok(Placed { placement, names })
    }

    /// Sets the gauge of workers by fingerprint.
    pub(super) fn count_fingerprints(&self) {
        let gauge = &self.metrics.fingerprint_workers;
        gauge.clear();
        for edition in self.rollout.readiness(&self.loads.snapshot()) {
            for (role, count) in [("prefill", edition.prefill), ("decode", edition.decode)] {
                let fingerprint = edition.fingerprint.clone();
                gauge.get_or_create(&FingerprintLabels { fingerprint, role }).set(count.into());
            }
        }
    }

    /// Writes a placement down for as long as the request is there.
    pub(super) fn intend(&self, placement: &Placement) -> Intent<'_> {
        let entry = self.ledger.lock().record(placement, clock::now());
        Intent { placing: self, entry: Some(entry) }
    }

    /// A worker refused, for want of this.
    pub(super) fn full(&self, shortage: Option<Shortage>) {
        let short = shortage.map_or("other", Shortage::name);
        self.metrics.full.get_or_create(&FullLabels { short }).inc();
    }

    /// A worker has begun: what it had cached, beside what was expected.
    pub(super) fn begun_with(&self, placement: &Placement, cached_tokens: u32) {
        self.metrics.cached_expected.inc_by(placement.cached_tokens.into());
        self.metrics.cached_found.inc_by(cached_tokens.into());
    }

    /// A worker failed a request.
    pub(super) fn lost(&self, code: ErrorCode) {
        self.metrics.workers_lost.get_or_create(&LostLabels { code: format!("{code:?}") }).inc();
    }

    /// The name that clients know `fingerprint` by.
    pub(super) fn name_of(&self, fingerprint: &Fingerprint) -> String {
        self.rollout.name_of(fingerprint)
    }

    pub(super) fn channel(&self, address: &Address) -> Channel {
        self.channels.get(address, self.role_of(address))
    }

    /// See [`Channels::begun`].
    pub(super) async fn begun<T>(
        &self,
        address: &Address,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        self.channels.begun(address, call).await
    }

    /// What the worker is named for; as membership had it when the request was placed there.
    fn role_of(&self, address: &Address) -> Role {
        let snapshot = self.loads.snapshot();
        let mut infos = snapshot.workers.iter().map(|worker| &worker.info);
        let placed = infos.find(|info| info.address.worker == address.worker);
        placed.map_or(Role::Decode, |info| info.role)
    }

    pub(super) fn readiness(&self) -> Readiness {
        let snapshot = self.loads.snapshot();
        let fingerprints = self.rollout.readiness(&snapshot);
        let prefill = fingerprints.iter().map(|edition| edition.prefill).sum();
        let decode = fingerprints.iter().map(|edition| edition.decode).sum();
        let workers = [(Role::Prefill, prefill), (Role::Decode, decode)];
        let missing = workers.iter().filter(|(_, count)| *count == 0);
        let mut reasons: Vec<String> =
            missing.map(|(role, _)| format!("no {role} worker is serving")).collect();
        reasons.extend(remarks::unheard(&snapshot));
        reasons.extend(remarks::strangers(&snapshot, &self.model));
        reasons.extend(self.rollout.remark(&fingerprints));
        match self.loads.stale_since() {
            Some(_) => {
                reasons
                    .push("etcd is away: workers are those known before (the log says why)".into());
            }
            None => reasons.extend(remarks::nobody(&snapshot).map(str::to_owned)),
        }
        let ready = fingerprints.iter().any(|edition| edition.takes_new);
        Readiness { ready, workers: workers.into(), reasons, fingerprints }
    }

    /// The cluster as reported, with what this router has sent there since.
    fn snapshot(&self) -> ClusterSnapshot {
        let mut snapshot = ClusterSnapshot::clone(&self.loads.snapshot());
        self.ledger.lock().apply(&mut snapshot);
        snapshot
    }
}

/// What a client is told; of a request that no worker could ever hold, what to change of it.
fn told(refusal: Refusal) -> String {
    match refusal {
        Refusal::TooLong { tokens, tokens_max } => format!(
            "prompt and answer may come to {tokens} tokens, and no worker holds more than {tokens_max}: \
             shorten the prompt, or lower `max_tokens`"
        ),
        Refusal::TooWide { sequences, sequences_max, tokens } => format!(
            "{sequences} answers of up to {tokens} tokens, prompt included, are more than the {sequences_max} that a \
             worker runs at a time: ask for fewer (`n`), or lower `max_tokens`"
        ),
        refusal => refusal.to_string(),
    }
}

/// No worker may be given more to wait for.
fn full() -> DispatchError {
    let message = format!("all workers are busy: {}", Shortage::Line.told());
    DispatchError::new(ErrorCode::Busy, message)
}

// === impl Intent ===

impl Intent<'_> {
    /// The worker has answered that it has the request.
    pub(super) fn taken(&self, worker: &WorkerId) {
        if let Some(entry) = &self.entry {
            self.placing.ledger.lock().taken(entry, worker, clock::now());
        }
    }
}

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
            full: metrics.counters(
                "baton_worker_refusals",
                "Refusals of workers, by what was short; a request may have several",
            ),
            cached_expected: metrics.counter(
                "baton_prefix_expected_tokens",
                "Prompt tokens that workers were thought to have cached when requests were placed there",
            ),
            cached_found: metrics.counter(
                "baton_prefix_found_tokens",
                "Prompt tokens that they did have cached, of the same requests",
            ),
            workers_lost: metrics
                .counters("baton_legs_lost", "Streams from workers that broke, by error"),
            fingerprint_workers: metrics.gauges(
                "baton_fingerprint_workers",
                "Workers of the model that take work, by weights and role; more than one fingerprint is a rollout, or a mistake",
            ),
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
            Refusal::WeightsMissing => "weights-missing",
            Refusal::Busy { .. } => "busy",
            Refusal::TooLong { .. } => "too-long",
            Refusal::TooWide { .. } => "too-wide",
        };
        self.refusals.get_or_create(&RefusalLabels { reason }).inc();
    }
}

// === impl DispatchError ===

impl From<Refusal> for DispatchError {
    fn from(refusal: Refusal) -> Self {
        let (code, retry_after) = match refusal {
            Refusal::NoWorkers | Refusal::ModelMissing | Refusal::WeightsMissing => {
                (ErrorCode::Unavailable, Some(NO_WORKER_RETRY))
            }
            Refusal::Busy { retry_after } => return full().again_after(retry_after),
            Refusal::TooLong { .. } | Refusal::TooWide { .. } => (ErrorCode::InvalidRequest, None),
        };
        let param = matches!(refusal, Refusal::TooWide { .. }).then_some("n");
        Self { param, retry_after, ..Self::new(code, told(refusal)) }
    }
}
