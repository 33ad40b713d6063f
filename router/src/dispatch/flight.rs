//! One request on its way: placed, followed, and placed again when a worker is lost.
//!
//! A *leg* is one stream from one worker for some of the request's choices. A leg that breaks is
//! followed by others that go on from the tokens already delivered: sampling is a pure function of
//! (seed, choice, index), so the client sees one unbroken sequence.

use std::sync::Arc;

use cluster::ErrorCode;
use futures::future::{BoxFuture, FutureExt as _, try_join_all};
use parking_lot::Mutex;
use proto::v1;
use proto::v1::decode_client::DecodeClient;
use proto::v1::generate_response::{Event as Wire, Path};
use scheduler::{Generation, Placement, SampledToken, WorkerId};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::placing::Placing;
use super::progress::{Progress, TokenCheck};
use super::setbacks::Setbacks;
use super::{DispatchError, DispatchRequest, GenerationEvent, Route};

/// One request on its way.
pub(super) struct Flight {
    placing: Arc<Placing>,
    request: DispatchRequest,
    events: mpsc::Sender<Result<GenerationEvent, DispatchError>>,
    progress: Mutex<Progress>,
}

/// How one leg ended.
enum LegEnd {
    /// All of its choices finished.
    Landed,
    /// The worker failed; another may not.
    Lost { worker: WorkerId, error: DispatchError },
}

// === impl Flight ===

impl Flight {
    pub(super) fn new(
        placing: Arc<Placing>,
        request: DispatchRequest,
        events: mpsc::Sender<Result<GenerationEvent, DispatchError>>,
    ) -> Self {
        let progress = Mutex::new(Progress::new(&request.generation));
        Self { placing, request, events, progress }
    }

    /// Follows the request to its end. Ends early when the client goes away or the deadline passes.
    pub(super) async fn run(self, first: Placement) {
        let choices = self.request.generation.choices.clone();
        let outcome = tokio::select! {
            outcome = self.fly(choices, Some(first), Setbacks::none()) => outcome,
            () = self.events.closed() => return,
            () = tokio::time::sleep_until(self.request.deadline.into()) => Err(timed_out()),
        };
        if let Err(error) = outcome {
            tracing::warn!(code = ?error.code, %error, "request failed");
            // A client that doesn't read any more must not hold the task.
            let _ = self.events.try_send(Err(error));
        }
    }

    /// Brings `choices` to their ends, over as many legs as it takes.
    fn fly(
        &self,
        choices: Vec<u32>,
        placement: Option<Placement>,
        mut setbacks: Setbacks,
    ) -> BoxFuture<'_, Result<(), DispatchError>> {
        async move {
            let generation = self.progress.lock().remaining(&self.request.generation, &choices);
            let Some(generation) = generation else { return Ok(()) };
            let placement = match placement {
                Some(placement) => placement,
                None => self.place_again(&generation, &mut setbacks).await?,
            };
            let (worker, error) = match self.leg(&generation, &placement).await? {
                LegEnd::Landed => return Ok(()),
                LegEnd::Lost { worker, error } => (worker, error),
            };
            tracing::warn!(%worker, %error, "lost a worker; placing the request again");
            self.placing.lost(error.code);
            setbacks.add(worker, error)?;
            self.fly_on(choices, setbacks).await
        }
        .boxed()
    }

    /// Goes on after a lost leg: together while nothing has been delivered, else each choice alone,
    /// since each has its own context by then.
    async fn fly_on(&self, choices: Vec<u32>, setbacks: Setbacks) -> Result<(), DispatchError> {
        let open = self.progress.lock().open(&choices);
        if open.iter().all(|choice| self.progress.lock().delivered(*choice) == 0) {
            return self.fly(open, None, setbacks).await;
        }
        let legs = open.into_iter().map(|choice| self.fly(vec![choice], None, setbacks.clone()));
        try_join_all(legs).await.map(drop)
    }

    /// Finds another place. A client that already has a part of its answer waits for one as long
    /// as its deadline and our patience allow; one that has nothing yet is refused as soon as every
    /// worker was full.
    async fn place_again(
        &self,
        generation: &Generation,
        setbacks: &mut Setbacks,
    ) -> Result<Placement, DispatchError> {
        let give_up = tokio::time::Instant::now() + self.placing.patience();
        loop {
            let refused = match self.placing.place(generation, &setbacks.excluded()) {
                Ok(placement) => return Ok(placement),
                Err(refused) => refused,
            };
            if let Some(refusal) = setbacks.refusal()
                && !self.progress.lock().has_started()
            {
                return Err(refusal.clone());
            }
            if !refused.code.retryable() || tokio::time::Instant::now() >= give_up {
                return Err(refused);
            }
            tokio::time::sleep(setbacks.next_pause()).await;
        }
    }

    /// One stream from one worker. `Err` is for the client: nothing more can be done.
    async fn leg(
        &self,
        generation: &Generation,
        placement: &Placement,
    ) -> Result<LegEnd, DispatchError> {
        let worker = placement.decode.worker.clone();
        let _intent = self.placing.intend(placement);
        let stream = match self.call(generation, placement).await {
            Ok(stream) => stream,
            Err(status) => return lost_or_refused(worker, &status),
        };
        match self.follow(stream, generation, &worker).await? {
            Ok(()) => Ok(LegEnd::Landed),
            Err(status) => lost_or_refused(worker, &status),
        }
    }

    async fn call(
        &self,
        generation: &Generation,
        placement: &Placement,
    ) -> Result<Streaming<v1::GenerateResponse>, tonic::Status> {
        let request = v1::GenerateRequest {
            generation: Some(generation.into()),
            deadline_ms: cluster::rpc::remaining_ms(self.request.deadline),
            incarnation: placement.decode.incarnation.0,
            prefill_peers: placement.prefill.iter().map(Into::into).collect(),
        };
        let request = cluster::rpc::request(request, self.request.deadline);
        let mut client = DecodeClient::new(self.placing.channel(&placement.decode));
        Ok(client.generate(request).await?.into_inner())
    }

    /// Passes a worker's events on. The inner result is the worker's, the outer one the client's.
    async fn follow(
        &self,
        mut stream: Streaming<v1::GenerateResponse>,
        generation: &Generation,
        worker: &WorkerId,
    ) -> Result<Result<(), tonic::Status>, DispatchError> {
        while !self.progress.lock().open(&generation.choices).is_empty() {
            match stream.message().await {
                Ok(Some(message)) => self.pass_on(message, worker).await?,
                Ok(None) => return Ok(Err(tonic::Status::unavailable("the stream ended early"))),
                Err(status) => return Ok(Err(status)),
            }
        }
        Ok(Ok(()))
    }

    async fn pass_on(
        &self,
        message: v1::GenerateResponse,
        worker: &WorkerId,
    ) -> Result<(), DispatchError> {
        match message.event {
            Some(Wire::Started(started)) => {
                let handoff = started.path() == Path::Handoff;
                let route = Route {
                    decode: worker.clone(),
                    prefill: handoff.then(|| WorkerId(started.prefill_worker_id.into())),
                    cached_tokens: started.cached_tokens,
                };
                if self.progress.lock().start() {
                    self.send(GenerationEvent::Started(route)).await?;
                }
            }
            Some(Wire::PromptScores(scores)) => {
                let scores =
                    scores.tokens.into_iter().map(TryInto::try_into).collect::<Result<_, _>>();
                let scores = scores.map_err(|error: proto::WireError| broken(error.to_string()))?;
                let new = self.progress.lock().score(scores);
                if !new.is_empty() {
                    self.send(GenerationEvent::PromptLogprobs(new)).await?;
                }
            }
            Some(Wire::Tokens(tokens)) => self.pass_tokens_on(tokens.tokens).await?,
            Some(Wire::Finished(finished)) => {
                let reason = finished.reason().map_err(|error| broken(error.to_string()))?;
                let choice = finished.choice;
                if self.progress.lock().finish(choice) {
                    self.send(GenerationEvent::Finished { choice, reason }).await?;
                }
            }
            Some(Wire::HandoffDone(done)) => {
                tracing::debug!(
                    bytes = done.bytes,
                    blocks = done.blocks,
                    us = done.duration_us,
                    attempts = done.attempts,
                    transport = done.transport,
                    "handed off"
                );
            }
            None => return Err(broken("a worker sent an empty event")),
        }
        Ok(())
    }

    async fn pass_tokens_on(&self, tokens: Vec<v1::SampledToken>) -> Result<(), DispatchError> {
        let mut fresh: Vec<SampledToken> = Vec::with_capacity(tokens.len());
        for token in tokens {
            let token = SampledToken::from(token);
            match self.progress.lock().deliver(&token) {
                TokenCheck::Next => fresh.push(token),
                TokenCheck::Twin => {}
                TokenCheck::Differs => {
                    return Err(broken("a resumed sequence did not repeat its own token"));
                }
                TokenCheck::Gap => return Err(broken("a worker left out a token")),
            }
        }
        if fresh.is_empty() { Ok(()) } else { self.send(GenerationEvent::Tokens(fresh)).await }
    }

    async fn send(&self, event: GenerationEvent) -> Result<(), DispatchError> {
        self.events.send(Ok(event)).await.map_err(|_| DispatchError {
            code: ErrorCode::Cancelled,
            message: "the client went away".into(),
            retry_after: None,
        })
    }
}

/// Another worker may succeed where this one failed, unless the request itself is at fault.
fn lost_or_refused(worker: WorkerId, status: &tonic::Status) -> Result<LegEnd, DispatchError> {
    let code = ErrorCode::from(status);
    let error = DispatchError { code, message: status.message().to_owned(), retry_after: None };
    if code.retryable() { Ok(LegEnd::Lost { worker, error }) } else { Err(error) }
}

fn broken(message: impl Into<String>) -> DispatchError {
    DispatchError { code: ErrorCode::Internal, message: message.into(), retry_after: None }
}

fn timed_out() -> DispatchError {
    let message =
        "the request's deadline passed before it was done; ask for fewer tokens or allow more time";
    DispatchError { code: ErrorCode::Timeout, message: message.into(), retry_after: None }
}
