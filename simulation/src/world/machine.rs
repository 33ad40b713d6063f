//! A machine of the world, and the process on it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::telemetry::Metrics;
use kv_cache::BlockPool;
use kv_transfer::transport::{FaultCounts, Faults};
use parking_lot::Mutex;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;
use words::Role;

use crate::checks::Verdicts;
use crate::checks::coverage::Coverage;
use crate::network::HostId;
use crate::nodes::WorkerSpec;
use crate::nodes::process::Process;
use crate::plan::Part;

/// When the simulation's clocks begin.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);

pub(super) struct Machine {
    pub(super) host: HostId,
    pub(super) part: Part,
    pub(super) process: Option<Process>,
    /// How far its clock is off, in milliseconds.
    pub(super) clock_ms: i64,
    /// Tells the node on it to leave.
    pub(super) leave: CancellationToken,
    /// The node's counters.
    pub(super) metrics: Arc<Mutex<Option<Metrics>>>,
    /// The blocks of the worker on it.
    pool: Arc<Mutex<Option<BlockPool>>>,
    /// What happens to the messages of its hand-offs.
    faults: Faults,
    struck: Arc<FaultCounts>,
}

// === impl Machine ===

impl Machine {
    pub(super) fn new(host: HostId, part: Part, drop: f64, rng: &mut ChaCha8Rng) -> Self {
        let faults = Faults {
            seed: rng.random(),
            drop: rng.random_range(0.0..=drop),
            duplicate: often(rng, 0.1),
            corrupt: often(rng, 0.1),
            delay: often(rng, 0.1),
            delay_time: Duration::from_millis(rng.random_range(1..80)),
            cut_after: None,
            cuts_max: 0,
        };
        Self {
            host,
            part,
            process: None,
            clock_ms: 0,
            leave: CancellationToken::new(),
            metrics: Arc::default(),
            pool: Arc::default(),
            faults,
            struck: Arc::default(),
        }
    }

    pub(super) fn runs_router(&self, router: usize) -> bool {
        let process = self.process.as_ref().filter(|_| self.part == Part::Router(router));
        process.is_some_and(|process| !process.is_stopped())
    }

    /// Ends its process at once.
    pub(super) fn kill(&mut self, coverage: &Coverage) {
        if let Some(metrics) = self.metrics.lock().take() {
            coverage.take_up(&metrics);
        }
        self.process = None;
        *self.pool.lock() = None;
    }

    /// What its clock says.
    pub(super) fn wall(&self, now: Duration) -> SystemTime {
        let off = Duration::from_millis(self.clock_ms.unsigned_abs());
        let right = SystemTime::UNIX_EPOCH + EPOCH + now;
        if self.clock_ms < 0 { right - off } else { right + off }
    }

    /// The worker on it, if it has one.
    pub(super) fn spec(&self) -> WorkerSpec {
        let (role, weights) = match self.part {
            Part::Prefill(weights) => (Role::Prefill, weights),
            Part::Decode(weights) => (Role::Decode, weights),
            Part::Etcd | Part::Router(_) | Part::Stranger => (Role::Decode, 0),
        };
        WorkerSpec {
            role,
            weights,
            faults: self.faults.clone(),
            struck: self.struck.clone(),
            pool: self.pool.clone(),
            leave: self.leave.clone(),
        }
    }

    /// Holds that the worker's pool agrees with itself.
    pub(super) fn audit(&self, verdicts: &Verdicts) {
        let audited = self.pool.lock().as_ref().map(BlockPool::audit);
        if let Some(Err(corrupt)) = audited {
            verdicts.violated(format!("host {}: {corrupt}", self.host.0));
        }
    }

    /// Holds that every block is back and nothing is promised.
    pub(super) fn check_rest(&self, verdicts: &Verdicts) {
        let counts = self.pool.lock().as_ref().map(BlockPool::counts);
        let Some(counts) = counts.filter(|it| it.active > 0 || it.reserved > 0) else { return };
        verdicts.violated(format!("host {} at rest: {counts:?}", self.host.0));
    }

    /// Notes what the messages of its hand-offs came through.
    pub(super) fn take_up(&self, coverage: &Coverage) {
        let struck = &self.struck;
        coverage.add("hand-off message lost", FaultCounts::of(&struck.lost));
        coverage.add("hand-off message doubled", FaultCounts::of(&struck.doubled));
        coverage.add("hand-off message damaged", FaultCounts::of(&struck.damaged));
        coverage.add("hand-off message held up", FaultCounts::of(&struck.held_up));
    }
}

/// A chance that is 0 more often than not.
fn often(rng: &mut ChaCha8Rng, most: f64) -> f64 {
    if rng.random_bool(0.6) { 0.0 } else { rng.random_range(0.0..most) }
}
