//! Who is let in, by this router's targets and its clients' shares; and who stays in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::telemetry::Metrics;
use cluster::{ErrorCode, clock};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use scheduler::admission::{self, Late, Misses, Size, Stage, Target};
use scheduler::{Forecast, PlacementRequest, SloTargets, Turns};
use words::ClientId;

use super::DispatchError;

/// What admission needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// What a request that is let in may expect.
    pub targets: SloTargets,
}

/// Decides for one router.
pub(super) struct Admission {
    config: AdmissionConfig,
    turns: Mutex<Turns>,
    misses: Mutex<Misses>,
    refused: AtomicU64,
    refusals: Family<TargetLabels, Counter>,
}

/// A request among its client's, from its placement to its end.
pub(super) struct Turn {
    admission: Arc<Admission>,
    client: ClientId,
    size: Size,
    stage: Mutex<Stage>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TargetLabels {
    target: &'static str,
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(config: AdmissionConfig, metrics: &Metrics) -> Self {
        Self {
            config,
            turns: Mutex::default(),
            misses: Mutex::default(),
            refused: AtomicU64::new(0),
            refusals: metrics.counters(
                "baton_admission_refusals",
                "Requests refused because they would have missed a target, by target",
            ),
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
        let late = match admission::decide(&self.doubted(forecast), &self.config.targets) {
            Ok(()) => return Ok(()),
            Err(late) => late,
        };
        let target = match late.target {
            Target::Ttft => "ttft",
            Target::Tpot => "tpot",
        };
        self.refusals.get_or_create(&TargetLabels { target }).inc();
        let turn = self.refused.fetch_add(1, Ordering::Relaxed);
        Err(self.too_late(&late, forecast, turn))
    }

    /// What [`Admission::judge`] would say, for those who only ask.
    pub(super) fn would_judge(&self, forecast: &Forecast) -> Result<(), DispatchError> {
        let decided = admission::decide(&self.doubted(forecast), &self.config.targets);
        let turn = self.refused.load(Ordering::Relaxed);
        decided.map_err(|late| self.too_late(&late, forecast, turn))
    }

    fn too_late(&self, late: &Late, forecast: &Forecast, turn: u64) -> DispatchError {
        // Sooner than somebody ends there is room for nobody.
        let room_in_s = late.room_in_s.max(forecast.release_s);
        let retry_after = admission::retry_after(room_in_s, turn);
        let message = format!(
            "the cluster is busy: {}; try again in {:.1} s",
            missed(late, &self.config.targets),
            retry_after.as_secs_f64()
        );
        let retry_after = Some(retry_after);
        DispatchError { retry_after, ..DispatchError::new(ErrorCode::Busy, message) }
    }

    /// Until work on a request with this forecast has to begin.
    pub(super) fn start_within(&self, forecast: &Forecast) -> Duration {
        admission::start_within(&self.doubted(forecast), &self.config.targets)
    }

    /// The longest step at the worker that a request with this forecast may find there.
    pub(super) fn step_max(&self, forecast: &Forecast) -> Option<Duration> {
        admission::step_max(forecast, &self.config.targets)
    }

    /// The first token of a request with this forecast came after this time.
    pub(super) fn came(&self, forecast: &Forecast, after: Duration) {
        let late_s = after.as_secs_f64() - forecast.wait_s - forecast.own_s;
        self.misses.lock().observe(late_s, clock::now());
    }

    /// The forecast, with what is to be left free as such are wrong by so much.
    fn doubted(&self, forecast: &Forecast) -> Forecast {
        let margin_s = self.misses.lock().margin_s(self.config.targets.ttft, clock::now());
        Forecast { margin_s, ..*forecast }
    }

    /// A request of `client` was placed.
    pub(super) fn begin(self: &Arc<Self>, client: ClientId, size: Size) -> Turn {
        self.turns.lock().begin(client, size);
        Turn { admission: self.clone(), client, size, stage: Mutex::default() }
    }
}

/// What is forecast, and what it is held to: who sees both can tell a full cluster from a target that is too short.
fn missed(late: &Late, targets: &SloTargets) -> String {
    let Late { expected_s, margin_s, .. } = late;
    match late.target {
        Target::Ttft => format!(
            "the first token would come after {expected_s:.2} s (target {:.2} s, with a margin of {margin_s:.2} s for what \
             forecasts miss by)",
            targets.ttft.as_secs_f64()
        ),
        Target::Tpot => format!(
            "a token would take {:.0} ms (target {:.0} ms, with a margin of {:.0} ms for what forecasts miss by)",
            expected_s * 1e3,
            targets.tpot.as_secs_f64() * 1e3,
            margin_s * 1e3
        ),
    }
}

// === impl Turn ===

impl Turn {
    /// The request has come so far, if it hadn't yet.
    pub(super) fn reach(&self, stage: Stage) {
        let mut before = self.stage.lock();
        if *before < stage {
            self.admission.turns.lock().advance(self.client, self.size, *before, stage);
            *before = stage;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let stage = *self.stage.get_mut();
        self.admission.turns.lock().end(self.client, self.size, stage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_was_forecast_and_what_it_is_held_to() {
        let (ttft, tpot) = (Duration::from_millis(500), Duration::from_millis(30));
        let config = AdmissionConfig { targets: SloTargets { ttft, tpot } };
        let admission = Admission::new(config, &Metrics::new());
        let refused = |forecast: Forecast| admission.judge(&forecast).unwrap_err().message;
        let late = refused(Forecast { wait_s: 0.4, own_s: 0.08, ..Forecast::default() });
        let words = "the cluster is busy: the first token would come after 0.48 s (target 0.50 s, with a margin of \
                     0.15 s for what forecasts miss by); try again in ";
        assert!(late.starts_with(words), "{late}");
        let slow = refused(Forecast { step_s: 0.025, ..Forecast::default() });
        let words = "the cluster is busy: a token would take 25 ms (target 30 ms, with a margin of 9 ms for what \
                     forecasts miss by); try again in ";
        assert!(slow.starts_with(words), "{slow}");
    }
}
