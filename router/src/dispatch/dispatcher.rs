//! The dispatcher over a cluster: places each request and gives it a task of its own.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use cluster::telemetry::Metrics;
use cluster::{ErrorCode, Lifecycle};
use tokio::sync::mpsc;
use tracing::Instrument as _;
use words::{ClientId, Fingerprint, Generation};

use super::flight::{Flight, WayBack};
use super::placing::{DispatcherConfig, Placing};
use super::{
    DispatchError, DispatchRequest, Explained, Explanation, Generate, GenerationStream, Readiness,
};

/// Events that a client may leave unread before its worker is made to wait: a few steps' worth for
/// each of several choices. Behind them the worker's own bounded queues pause the sequence.
const EVENTS_UNREAD_MAX: usize = 64;

/// Places requests on a cluster's workers. A clone is another handle to the same dispatcher.
#[derive(Clone)]
pub struct Dispatcher {
    placing: Arc<Placing>,
    life: Lifecycle,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// A dispatcher whose requests count as work of `life`.
    #[must_use]
    pub fn new(config: DispatcherConfig, metrics: &Metrics, life: Lifecycle) -> Self {
        let placing = Arc::new(Placing::new(config, metrics));
        let weak = Arc::downgrade(&placing);
        metrics.before_scrape(move || {
            if let Some(placing) = weak.upgrade() {
                placing.count_fingerprints();
            }
        });
        Self { placing, life }
    }
}

#[async_trait]
impl Generate for Dispatcher {
    async fn generate(&self, request: DispatchRequest) -> Result<GenerationStream, DispatchError> {
        let permit = self.life.gate().enter().map_err(|error| {
            let message = "this router is leaving; another one will serve the request";
            DispatchError::new(error.code(), message)
        })?;
        let admit = |bound: Option<&Fingerprint>| {
            self.placing.admit(&request.generation, bound, request.explanation.as_ref())
        };
        let placement = request.pin.place(admit)?;
        let (events, stream) = mpsc::channel(EVENTS_UNREAD_MAX);
        let last_words = Arc::new(OnceLock::new());
        let way_back = WayBack { events, last_words: last_words.clone() };
        let flight = Flight::new(self.placing.clone(), request, &placement, way_back);
        let stream = GenerationStream::new(stream).with_last_words(last_words.clone());
        let task = async move {
            let cut = permit.cancelled().clone();
            if cut.run_until_cancelled(flight.run(placement)).await.is_none() {
                let message = "this router left before the request was done";
                let _ = last_words.set(DispatchError::new(ErrorCode::Unavailable, message));
            }
            drop(permit);
        };
        self.life.tasks().spawn(task.in_current_span());
        Ok(stream)
    }

    fn foresee(
        &self,
        client: ClientId,
        explanation: Option<&Explanation>,
    ) -> Result<(), DispatchError> {
        self.placing.foresee(client, explanation)
    }

    fn explain(&self, generation: &Generation) -> Explained {
        self.placing.explain(generation)
    }

    fn readiness(&self) -> Readiness {
        self.placing.readiness()
    }
}
