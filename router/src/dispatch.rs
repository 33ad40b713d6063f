//! Places requests on workers and brings their tokens back, whatever happens on the way.

mod admission;
mod dispatcher;
mod explained;
mod explanation;
mod flight;
mod names;
mod news;
mod pin;
mod placing;
mod progress;
mod remarks;
mod rollout;
mod setbacks;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::ErrorCode;
use parking_lot::Mutex;
use scheduler::StreamPermit;
use serde::Serialize;
use tokio::sync::mpsc;
use words::{ClientId, FinishReason, Generation, PromptLogprob, Role, SampledToken, WorkerId};

pub use self::admission::AdmissionConfig;
pub use self::dispatcher::Dispatcher;
pub use self::explained::Explained;
pub use self::explanation::Explanation;
pub use self::news::{News, Nonsense};
pub use self::pin::Pin;
pub use self::placing::DispatcherConfig;
pub use self::progress::Progress;

/// One client request, ready to be placed.
#[derive(Clone, Debug)]
pub struct DispatchRequest {
    /// The work.
    pub generation: Generation,
    /// When the client asked.
    pub received: Instant,
    /// When the client's patience ends.
    pub deadline: Instant,
    /// Keeps the answer to one set of weights; shared by all parts of a client's request.
    pub pin: Pin,
    /// The client's place among the streams; given back when the request fails.
    pub place: Option<StreamPlace>,
    /// Where it is told why the request goes where it goes, if anybody asks.
    pub explanation: Option<Explanation>,
}

/// A request's place among the streams, held by whoever writes to the client and whoever works for it.
///
/// A client that doesn't read keeps its writer: nobody asks that one for more. Its place must not stay with it.
#[derive(Clone, Debug)]
pub struct StreamPlace(Arc<Mutex<Option<StreamPermit>>>);

/// What a request's stream brings. Tokens of one choice come in order, each exactly once, also when
/// the request had to move to another worker.
#[derive(Clone, Debug)]
pub enum GenerationEvent {
    /// Work has begun.
    Started(Route),
    /// Log probabilities of the prompt's own tokens; at most once.
    PromptLogprobs(Vec<PromptLogprob>),
    /// New tokens.
    Tokens(Vec<SampledToken>),
    /// A choice has ended; the stream ends after the last one.
    Finished {
        /// Which choice.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
}

/// Where a request went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The worker that generates.
    pub decode: WorkerId,
    /// The worker that computed the prompt, when its blocks were handed over.
    pub prefill: Option<WorkerId>,
    /// Prompt tokens found in a cache.
    pub cached_tokens: u32,
    /// The name of the weights, and of how they are computed, that the answer is from.
    pub fingerprint: String,
}

/// Why a request could not be served, or not to its end.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DispatchError {
    /// What it means to the client.
    pub code: ErrorCode,
    /// For the client's eyes: says what to do.
    pub message: String,
    /// For [`ErrorCode::Busy`] and [`ErrorCode::Unavailable`]: when to come back.
    pub retry_after: Option<Duration>,
    /// For [`ErrorCode::InvalidRequest`]: the field at fault, where one is.
    pub param: Option<&'static str>,
}

/// A request under way. Dropping it cancels the work on every worker.
#[derive(Debug)]
pub struct GenerationStream {
    events: mpsc::Receiver<Result<GenerationEvent, DispatchError>>,
    /// An error that comes after all events: there may be no room for it among them.
    last_words: Arc<OnceLock<DispatchError>>,
    has_ended: bool,
}

// === impl DispatchError ===

impl DispatchError {
    /// The same, which says when to come back: for programs, and in its words.
    fn again_after(self, after: Duration) -> Self {
        let after_s = after.as_secs_f64().max(0.1);
        let message = format!("{}; try again in {after_s:.1} s", self.message);
        Self { message, retry_after: Some(after), ..self }
    }

    /// An error that says neither when to come back nor which field is at fault.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, param: None }
    }
}

// === impl GenerationStream ===

impl GenerationStream {
    /// Wraps the receiving end of a request's events.
    #[must_use]
    pub fn new(events: mpsc::Receiver<Result<GenerationEvent, DispatchError>>) -> Self {
        Self { events, last_words: Arc::default(), has_ended: false }
    }

    /// The same, with a place for an error that comes after all events.
    #[must_use]
    pub fn with_last_words(self, last_words: Arc<OnceLock<DispatchError>>) -> Self {
        Self { last_words, ..self }
    }

    /// The next event; `None` after the last choice finished or after an error.
    pub async fn next(&mut self) -> Option<Result<GenerationEvent, DispatchError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`GenerationStream::next`], for those that watch several streams at once.
    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<GenerationEvent, DispatchError>>> {
        let event = ready!(self.events.poll_recv(cx));
        if event.is_none() && !std::mem::replace(&mut self.has_ended, true) {
            return Poll::Ready(self.last_words.get().cloned().map(Err));
        }
        Poll::Ready(event)
    }
}

// === impl StreamPlace ===

impl StreamPlace {
    pub(crate) fn new(permit: StreamPermit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }

    /// Gives the place back, whoever still holds on to it.
    pub fn give_back(&self) {
        self.0.lock().take();
    }
}

/// Produces the tokens of requests: the dispatcher over a cluster, or a scripted peer in tests.
#[async_trait]
pub trait Generate: Send + Sync {
    /// Places a request and starts it. Returns as soon as it has been placed; whether its prompt
    /// has begun is told by [`GenerationEvent::Started`].
    ///
    /// # Errors
    /// [`DispatchError`] if the request is refused: nobody can take it, or not in time.
    async fn generate(&self, request: DispatchRequest) -> Result<GenerationStream, DispatchError>;

    /// Refuses a request of `client` that nobody can take however small it is, before it costs anything; why is told in
    /// `explanation`.
    ///
    /// # Errors
    /// [`DispatchError`] as [`Generate::generate`] would give.
    fn foresee(
        &self,
        client: ClientId,
        explanation: Option<&Explanation>,
    ) -> Result<(), DispatchError>;

    /// Where a request would go now; it goes nowhere.
    fn explain(&self, generation: &Generation) -> Explained;

    /// Whether requests can be served at the moment, and by how many workers.
    fn readiness(&self) -> Readiness;
}

/// Whether requests can be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A request sent now would find workers.
    pub ready: bool,
    /// Workers that take requests, by role.
    pub workers: BTreeMap<Role, u32>,
    /// What is amiss, in words for an operator; may be non-empty although `ready`.
    pub reasons: Vec<String>,
    /// The weights that workers of the model have, newest first.
    pub fingerprints: Vec<EditionReadiness>,
}

/// The workers of one model that compute alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EditionReadiness {
    /// Their name, as in answers.
    pub fingerprint: String,
    /// The digest of their weights.
    pub weights: String,
    /// How they keep KV.
    pub kv_layout: String,
    /// Prefill workers that take work.
    pub prefill: u32,
    /// Decode workers that take work.
    pub decode: u32,
    /// Whether new requests go to them.
    pub takes_new: bool,
}

#[cfg(test)]
mod tests;
