//! A router whose answers are not what its workers gave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use cluster::ErrorCode;
use router::dispatch::{
    DispatchError, DispatchRequest, Explained, Explanation, Generate, GenerationEvent,
    GenerationStream, Readiness,
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use words::{ClientId, FinishReason, Generation};

use super::Bug;

/// One request in so many meets the bug.
const EVERY: u64 = 3;
/// Events on their way through.
const EVENTS_MAX: usize = 4;
/// What a forgotten deadline becomes.
const LATER: Duration = Duration::from_secs(3600);
/// How long a starved request waits: less than anybody's patience who has some.
const WAIT: Duration = Duration::from_millis(4500);

/// Answers with a planted bug.
pub struct Garbled<G> {
    inner: G,
    bug: Bug,
    tasks: TaskTracker,
    requests: AtomicU64,
}

/// What the bug makes of an event.
enum Verdict {
    Passes(GenerationEvent),
    Twice(GenerationEvent),
    Vanishes,
    Ends,
}

// === impl Garbled ===

impl<G: Generate> Garbled<G> {
    /// `inner`, with a bug.
    ///
    /// - `tasks`: of the process that it is in.
    pub fn new(inner: G, bug: Bug, tasks: TaskTracker) -> Self {
        Self { inner, bug, tasks, requests: AtomicU64::new(0) }
    }

    fn strikes(&self) -> bool {
        self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY)
    }

    /// The request, as the bug passes it on.
    fn altered(&self, mut request: DispatchRequest) -> DispatchRequest {
        if self.bug == Bug::DeafToDeadlines {
            request.deadline += LATER;
        }
        request
    }
}

#[async_trait]
impl<G: Generate> Generate for Garbled<G> {
    async fn generate(&self, request: DispatchRequest) -> Result<GenerationStream, DispatchError> {
        let request = self.altered(request);
        if !self.strikes() {
            return self.inner.generate(request).await;
        }
        match self.bug {
            Bug::NeedlessFailure => {
                return Err(DispatchError::new(ErrorCode::Internal, "planted"));
            }
            Bug::Starvation => tokio::time::sleep(WAIT).await,
            _ => {}
        }
        let inner = self.inner.generate(request).await?;
        let (events, stream) = mpsc::channel(EVENTS_MAX);
        self.tasks.spawn(carry(self.bug, inner, events));
        Ok(GenerationStream::new(stream))
    }

    fn foresee(
        &self,
        client: ClientId,
        explanation: Option<&Explanation>,
    ) -> Result<(), DispatchError> {
        self.inner.foresee(client, explanation)
    }

    fn explain(&self, generation: &Generation) -> Explained {
        self.inner.explain(generation)
    }

    fn readiness(&self) -> Readiness {
        self.inner.readiness()
    }
}

async fn carry(
    bug: Bug,
    mut from: GenerationStream,
    to: mpsc::Sender<Result<GenerationEvent, DispatchError>>,
) {
    while let Some(event) = from.next().await {
        let verdict = match event {
            Ok(event) => judge(bug, event),
            Err(_) if bug == Bug::DeafToDeadlines => return to.closed().await,
            Err(error) => return drop(to.send(Err(error)).await),
        };
        let event = match verdict {
            Verdict::Passes(event) => event,
            Verdict::Twice(event) => {
                drop(to.send(Ok(event.clone())).await);
                event
            }
            Verdict::Vanishes => continue,
            Verdict::Ends => return,
        };
        if to.send(Ok(event)).await.is_err() {
            return;
        }
    }
    if bug == Bug::DeafToDeadlines {
        to.closed().await;
    }
}

fn judge(bug: Bug, event: GenerationEvent) -> Verdict {
    match (bug, event) {
        (Bug::LostToken, GenerationEvent::Tokens(tokens)) if is_late(&tokens) => Verdict::Vanishes,
        (Bug::DoubledToken, event @ GenerationEvent::Tokens(_)) => Verdict::Twice(event),
        (Bug::SilentEnd, GenerationEvent::Finished { .. }) => Verdict::Ends,
        (Bug::WrongReason, GenerationEvent::Finished { choice, .. }) => {
            let reason = FinishReason::Stop(u32::MAX);
            Verdict::Passes(GenerationEvent::Finished { choice, reason })
        }
        (Bug::WrongLogprob, GenerationEvent::Tokens(mut tokens)) => {
            let given = tokens.iter_mut().filter_map(|token| token.logprob.as_mut());
            given.for_each(|logprob| logprob.logprob += 0.125);
            Verdict::Passes(GenerationEvent::Tokens(tokens))
        }
        (Bug::LostScore, GenerationEvent::PromptLogprobs(mut scores)) => {
            scores.pop();
            Verdict::Passes(GenerationEvent::PromptLogprobs(scores))
        }
        // Nothing of what would end it.
        (Bug::DeafToDeadlines, GenerationEvent::Finished { .. }) => Verdict::Vanishes,
        (_, event) => Verdict::Passes(event),
    }
}

/// Whether tokens are not the first ones.
fn is_late(tokens: &[words::SampledToken]) -> bool {
    tokens.first().is_some_and(|token| token.index > 0)
}
