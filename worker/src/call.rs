//! One streaming call on a worker: its deadline, its end, and what goes back.

use std::future::Future;
use std::time::{Duration, Instant};

use cluster::ErrorCode;
use cluster::node::Permit;
use cluster::security::Shown;
use parking_lot::Mutex;
use proto::{SealChain, Sealed};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

use crate::WorkerError;

/// Responses on their way to a caller. Sixteen let a step's tokens leave while the next step runs;
/// behind them the engine's own bounded channel holds a slow reader's tokens, then pauses him.
const RESPONSES_MAX: usize = 16;

/// A call's way back to its caller.
#[derive(Debug)]
pub struct Responses<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    /// Of what has been sent.
    seals: Mutex<SealChain>,
}

/// A call's stream, as tonic wants it.
pub type ResponseStream<T> = ReceiverStream<Result<T, Status>>;

/// One streaming call.
#[derive(Debug)]
pub struct Call {
    /// When the caller's patience ends.
    pub deadline: Instant,
    /// When work on its first token has to begin; `None`: whenever.
    pub start_by: Option<Instant>,
    /// When the client's request arrived.
    pub asked_at: Instant,
    /// The node's leave to work on it.
    pub permit: Permit,
    /// The call's trace.
    pub span: Span,
    /// The call's seal, which its answers follow.
    seal: u64,
}

/// Who makes a call.
#[must_use]
pub fn caller<T>(request: &Request<T>) -> Shown {
    request.extensions().get::<Shown>().cloned().unwrap_or_default()
}

// === impl Call ===

impl Call {
    /// A call that was let in, with this long to go. Belongs to the current trace.
    ///
    /// - `start_within_ms`: until work on its first token has to begin; 0: whenever.
    /// - `seal`: the call's own.
    #[must_use]
    pub fn new(permit: Permit, deadline_ms: u64, start_within_ms: u64, seal: u64) -> Self {
        let deadline = cluster::rpc::deadline_from(deadline_ms);
        let start_by = cluster::rpc::deadline_from(start_within_ms).min(deadline);
        let start_by = (start_within_ms > 0).then_some(start_by);
        let (asked_at, span) = (cluster::clock::now(), Span::current());
        Self { deadline, start_by, asked_at, permit, span, seal }
    }

    /// The same, whose client has waited for this long already; at most as long as it may still wait.
    #[must_use]
    pub fn waiting(self, waited_us: u64) -> Self {
        let longest = self.deadline.saturating_duration_since(self.asked_at);
        let waited = Duration::from_micros(waited_us).min(longest);
        let asked_at = self.asked_at.checked_sub(waited).unwrap_or(self.asked_at);
        Self { asked_at, ..self }
    }

    /// Runs `work` on its own task until it ends, the caller goes away or the deadline passes.
    ///
    /// Work is cancelled by dropping its future, so everything it owns (credits, block tables,
    /// engine sequences, calls to peers) ends with it.
    pub fn spawn<T, W, F>(self, tasks: &TaskTracker, work: W) -> Response<ResponseStream<T>>
    where
        T: Sealed + Send + 'static,
        W: FnOnce(Responses<T>) -> F,
        F: Future<Output = Result<(), WorkerError>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(RESPONSES_MAX);
        let seals = Mutex::new(SealChain::after(self.seal));
        let work = work(Responses { sender: sender.clone(), seals });
        let (deadline, span) = (self.deadline.into(), self.span.clone());
        let task = async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = sender.closed() => Err(WorkerError::Cancelled),
                () = self.permit.cancelled().cancelled() => Err(WorkerError::Draining),
                () = tokio::time::sleep_until(deadline) => Err(WorkerError::Timeout("working on it")),
            };
            match outcome {
                Ok(()) => {}
                Err(WorkerError::Cancelled) => tracing::debug!("the caller went away"),
                Err(error) => {
                    if error.code() == ErrorCode::Busy {
                        tracing::debug!(%error, "call refused");
                    } else {
                        tracing::warn!(%error, "call failed");
                    }
                    // A caller that doesn't read any more must not hold the task.
                    let _ = sender.try_send(Err(error.into()));
                }
            }
        };
        tasks.spawn(task.instrument(span));
        Response::new(ReceiverStream::new(receiver))
    }
}

// === impl Responses ===

impl<T: Sealed> Responses<T> {
    /// Seals and sends one response, waiting for room.
    ///
    /// # Errors
    /// [`WorkerError::Cancelled`] if the caller has gone.
    pub async fn send(&self, response: impl Into<T>) -> Result<(), WorkerError> {
        let room = self.sender.reserve().await.map_err(|_| WorkerError::Cancelled)?;
        // Sent under the lock: sealed and sent is one order.
        let mut seals = self.seals.lock();
        room.send(Ok(seals.seal(response.into())));
        Ok(())
    }
}
