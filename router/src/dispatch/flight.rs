//! One request on its way: placed, followed, and placed again when a worker is lost.
//!
//! A *leg* is one stream from one worker for some of the request's choices. A leg that breaks is
//! followed by others that go on from the tokens already delivered: sampling is a pure function of
//! (seed, choice, index), so the client sees one unbroken sequence.
//!
//! A request that was placed once is carried until its deadline: while no worker can take it over, it
//! waits for one.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use cluster::rpc::MESSAGE_BYTES_MAX;
use cluster::{ErrorCode, Shortage, clock};
use futures::future::{BoxFuture, FutureExt as _, try_join_all};
use parking_lot::Mutex;
use proto::v1::decode_client::DecodeClient;
use proto::v1::generate_response::{Path, Started};
use proto::{Readable, SealChain, Sealed as _, v1};
use scheduler::admission::{Size, Stage};
use scheduler::{Forecast, Placement};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use words::{Fingerprint, Generation, WorkerId};

use super::admission::Turn;
use super::news::{News, Nonsense};
use super::placing::Placing;
use super::progress::Progress;
use super::setbacks::{Loss, Setbacks};
use super::{DispatchError, DispatchRequest, GenerationEvent, Route, StreamPlace};

/// One request on its way.
pub(super) struct Flight {
    placing: Arc<Placing>,
    request: DispatchRequest,
    way_back: WayBack,
    progress: Mutex<Progress>,
    turn: Turn,
    /// What was expected, until the first token or a loss.
    promise: Mutex<Option<Promise>>,
}

/// What a request that was let in was expected to get.
#[derive(Clone, Copy)]
struct Promise {
    placed: Instant,
    forecast: Forecast,
    /// When work has to begin.
    start_by: Option<Instant>,
}

/// A request's way back to its client.
pub(super) struct WayBack {
    pub(super) events: mpsc::Sender<Result<GenerationEvent, DispatchError>>,
    /// An error, which comes after all events.
    pub(super) last_words: Arc<OnceLock<DispatchError>>,
}

/// One worker's events, each checked to be the next one.
struct Leg {
    stream: Streaming<v1::GenerateResponse>,
    seals: SealChain,
}

/// How one leg ended.
enum LegEnd {
    /// All of its choices finished.
    Landed,
    /// The worker failed; another may not.
    Lost(Loss),
}

/// Why a worker's stream is not followed to its end.
enum Cut {
    /// The worker failed, or sent what makes no sense.
    Worker(DispatchError),
    /// The client went away.
    Client(DispatchError),
}

// === impl Flight ===

impl Flight {
    pub(super) fn new(
        placing: Arc<Placing>,
        request: DispatchRequest,
        first: &Placement,
        way_back: WayBack,
    ) -> Self {
        let progress = Mutex::new(Progress::new(&request.generation));
        let size = Size {
            width: request.generation.choices.len() as u32,
            prompt_tokens: request.generation.context_tokens() as u32,
        };
        let turn = placing.admission.begin(request.generation.client, size);
        let (placed, forecast) = (clock::now(), first.forecast);
        let start_by = placed.checked_add(placing.admission.start_within(&forecast));
        let promise = Mutex::new(Some(Promise { placed, forecast, start_by }));
        Self { placing, request, way_back, progress, turn, promise }
    }

    /// Follows the request to its end. Ends early when the client goes away or the deadline passes.
    pub(super) async fn run(self, first: Placement) {
        let choices = self.request.generation.choices.clone();
        let outcome = tokio::select! {
            biased;
            outcome = self.fly(choices, Some(first), Setbacks::none()) => outcome,
            () = self.way_back.events.closed() => return,
            () = tokio::time::sleep_until(self.request.deadline.into()) => Err(timed_out()),
        };
        if let Err(error) = outcome {
            // Whoever answers the client says so, once.
            tracing::debug!(code = ?error.code, %error, "request failed");
            // The first to be set, as there is one outcome. It is heard when the way back ends here.
            let _ = self.way_back.last_words.set(error);
            self.request.place.iter().for_each(StreamPlace::give_back);
        }
    }

    /// Brings `choices` to their ends, over as many legs as it takes.
    fn fly(
        &self,
        mut choices: Vec<u32>,
        mut placement: Option<Placement>,
        mut setbacks: Setbacks,
    ) -> BoxFuture<'_, Result<(), DispatchError>> {
        async move {
            loop {
                let left = self.progress.lock().remaining(&self.request.generation, &choices);
                let Some(generation) = left else { return Ok(()) };
                let placed = match placement.take() {
                    Some(placed) => placed,
                    None => self.place_again(&generation, &mut setbacks).await?,
                };
                let delivered = self.progress.lock().delivered(&choices);
                let LegEnd::Lost(loss) = self.leg(&generation, &placed).await? else {
                    return Ok(());
                };
                self.note(&loss);
                if self.progress.lock().delivered(&choices) > delivered {
                    setbacks.forgive();
                }
                setbacks.add(loss, clock::now())?;
                choices = self.progress.lock().open(&choices);
                if choices.len() > 1 && self.progress.lock().delivered(&choices) > 0 {
                    return self.fly_apart(choices, setbacks).await;
                }
            }
        }
        .boxed()
    }

    /// What a worker said instead of an answer.
    fn heard(&self, status: &Status) -> DispatchError {
        let error = failed(status);
        if error.code == ErrorCode::Busy {
            self.placing.full(Shortage::of(status));
        }
        error
    }

    fn note(&self, loss: &Loss) {
        let Loss { life, error, .. } = loss;
        self.placing.lost(error.code);
        if error.code == ErrorCode::Busy {
            tracing::debug!(%life, %error, "a worker is full; placing the request again");
            return;
        }
        tracing::warn!(%life, %error, "lost a worker; placing the request again");
        *self.promise.lock() = None;
    }

    /// Goes on with each choice alone, since each has its own context by now.
    async fn fly_apart(&self, choices: Vec<u32>, setbacks: Setbacks) -> Result<(), DispatchError> {
        let legs = choices.into_iter().map(|choice| self.fly(vec![choice], None, setbacks.clone()));
        try_join_all(legs).await.map(drop)
    }

    /// Finds another place, or waits for one until the deadline. Only a client that has nothing yet
    /// is refused sooner, once every worker was full or had failed the request by itself.
    async fn place_again(
        &self,
        generation: &Generation,
        setbacks: &mut Setbacks,
    ) -> Result<Placement, DispatchError> {
        loop {
            let now = clock::now();
            let place = |bound: Option<&Fingerprint>| {
                let excluded = setbacks.excluded(now);
                self.placing.place(generation, bound, &excluded, self.request.explanation.as_ref())
            };
            let refused = match self.request.pin.place(place) {
                Ok(placement) if !setbacks.only_seems_fit(&placement) => return Ok(placement),
                Ok(_) => setbacks.refusal().cloned().unwrap_or_else(timed_out),
                Err(refused) => refused,
            };
            if let Some(refusal) = setbacks.refusal()
                && !self.progress.lock().has_started()
            {
                return Err(refusal.clone());
            }
            let again = now + setbacks.next_pause();
            tokio::time::sleep_until(again.min(self.request.deadline).into()).await;
            if again >= self.request.deadline {
                return Err(waited_in_vain(&refused));
            }
        }
    }

    /// One stream from one worker. `Err` is for the client: nothing more can be done.
    async fn leg(
        &self,
        generation: &Generation,
        placement: &Placement,
    ) -> Result<LegEnd, DispatchError> {
        let intent = self.placing.intend(placement);
        let life = placement.decode.life();
        let leg = match self.call(generation, placement).await {
            Ok(leg) => leg,
            Err(status) => {
                return lost_or_refused(Loss { life, taken: false, error: self.heard(&status) });
            }
        };
        intent.taken(&placement.decode.worker);
        match self.follow(leg, generation, placement).await {
            Ok(()) => Ok(LegEnd::Landed),
            Err(Cut::Client(gone)) => Err(gone),
            Err(Cut::Worker(error)) => lost_or_refused(Loss { life, taken: true, error }),
        }
    }

    async fn call(&self, generation: &Generation, placement: &Placement) -> Result<Leg, Status> {
        let request = v1::GenerateRequest {
            generation: Some(generation.into()),
            deadline_ms: cluster::rpc::remaining_ms(self.request.deadline),
            incarnation: placement.decode.incarnation.0,
            prefill_peers: placement.prefill.iter().map(Into::into).collect(),
            start_within_ms: self.start_within_ms(),
            step_max_us: self.step_max_us(),
            waited_us: cluster::rpc::waited_us(self.request.received),
            seal: 0,
        };
        let request = request.sealed(0);
        let seals = SealChain::after(request.seal);
        let request = cluster::rpc::request(request, self.request.deadline);
        let mut client = DecodeClient::new(Readable::of(self.placing.channel(&placement.decode)))
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = self.placing.begun(&placement.decode, client.generate(request)).await?;
        Ok(Leg { stream: answer.into_inner(), seals })
    }

    /// Until work has to begin; 0 where it has, or may whenever it does.
    fn start_within_ms(&self) -> u64 {
        let wanted = self.promise.lock().and_then(|promise| promise.start_by);
        let wanted = wanted.filter(|_| !self.progress.lock().has_started());
        wanted.map_or(0, |at| cluster::rpc::remaining_ms(at).max(1))
    }

    /// The longest step that a worker may have; 0: whatever it has.
    fn step_max_us(&self) -> u64 {
        let promise = *self.promise.lock();
        let step_max = promise.and_then(|it| self.placing.admission.step_max(&it.forecast));
        step_max.map_or(0, |step| u64::try_from(step.as_micros()).unwrap_or(u64::MAX).max(1))
    }

    /// The first token has come: what was promised is judged by it.
    fn note_first(&self) {
        self.turn.reach(Stage::Speaks);
        if let Some(Promise { placed, forecast, .. }) = self.promise.lock().take() {
            self.placing.admission.came(&forecast, clock::now() - placed);
        }
    }

    /// Passes a worker's events on.
    async fn follow(
        &self,
        mut leg: Leg,
        generation: &Generation,
        placement: &Placement,
    ) -> Result<(), Cut> {
        while !self.progress.lock().open(&generation.choices).is_empty() {
            let message = leg.next().await.map_err(|status| Cut::Worker(self.heard(&status)))?;
            self.pass_on(message, placement).await?;
        }
        Ok(())
    }

    async fn pass_on(
        &self,
        message: v1::GenerateResponse,
        placement: &Placement,
    ) -> Result<(), Cut> {
        let news = self.progress.lock().read(message).map_err(|nonsense| broken(&nonsense))?;
        let event = match news {
            News::Started(started) => return self.begin(started, placement).await,
            News::Scores(scores) => GenerationEvent::PromptLogprobs(scores),
            News::Tokens(tokens) => GenerationEvent::Tokens(tokens),
            News::Finished { choice, reason } => GenerationEvent::Finished { choice, reason },
            News::HandedOver(done) => {
                tracing::debug!(
                    bytes = done.bytes,
                    blocks = done.blocks,
                    us = done.duration_us,
                    attempts = done.attempts,
                    transport = done.transport,
                    "handed off"
                );
                return Ok(());
            }
            News::Old => return Ok(()),
        };
        if !matches!(event, GenerationEvent::Finished { .. }) {
            self.request.pin.bind(&placement.fingerprint);
        }
        if matches!(event, GenerationEvent::Tokens(_)) {
            self.note_first();
        }
        self.send(event).await
    }

    async fn begin(&self, started: Started, placement: &Placement) -> Result<(), Cut> {
        let handoff = started.path() == Path::Handoff;
        let route = Route {
            decode: placement.decode.worker.clone(),
            prefill: handoff.then(|| WorkerId(started.prefill_worker_id.into())),
            cached_tokens: started.cached_tokens,
            fingerprint: self.placing.name_of(&placement.fingerprint),
        };
        self.turn.reach(Stage::Computes);
        let is_first = self.progress.lock().start();
        if is_first {
            self.placing.begun_with(placement, started.cached_tokens);
        }
        // A client that has no token yet may still be answered by others.
        if is_first || !self.request.pin.is_bound() {
            self.send(GenerationEvent::Started(route)).await?;
        }
        Ok(())
    }

    /// Waits for room. Whoever leaves it unread for too long is cut off where the answer is written, and closes this
    /// way back.
    async fn send(&self, event: GenerationEvent) -> Result<(), Cut> {
        self.way_back.events.send(Ok(event)).await.map_err(|_| gone())
    }
}

// === impl Leg ===

impl Leg {
    /// The next event of a leg that hasn't landed yet.
    async fn next(&mut self) -> Result<v1::GenerateResponse, Status> {
        let message = self.stream.message().await?;
        let mut message = message.ok_or_else(|| Status::unavailable("the stream ended early"))?;
        let checked = self.seals.check(&mut message);
        checked.map_err(|error| ErrorCode::Corrupt.status(error.to_string()))?;
        Ok(message)
    }
}

/// Another worker may succeed where this one failed, unless the request itself is at fault.
fn lost_or_refused(loss: Loss) -> Result<LegEnd, DispatchError> {
    if loss.error.code.retryable() { Ok(LegEnd::Lost(loss)) } else { Err(loss.error) }
}

fn failed(status: &Status) -> DispatchError {
    let code = ErrorCode::from(status);
    let retry_after = cluster::retry::after(status);
    DispatchError { retry_after, ..DispatchError::new(code, told(code, status)) }
}

/// What a client gets to hear of a worker's failure. A worker's own words name workers, addresses and
/// ids; they are for the log, under the request's id.
fn told(code: ErrorCode, status: &Status) -> String {
    let public = match code {
        // Said of the request, to whom it is from.
        ErrorCode::InvalidRequest => return status.message().to_owned(),
        ErrorCode::Busy => return busy(status),
        ErrorCode::Timeout => "the request was not finished in time",
        ErrorCode::Unavailable | ErrorCode::StaleIncarnation | ErrorCode::Incompatible => {
            "a worker was lost before the request was done; try again"
        }
        _ => "internal error; the server's log has the details under the request's id",
    };
    tracing::info!(?code, detail = status.message(), "a worker refused or failed");
    public.to_owned()
}

/// Of what workers have too little; when to come back is added when all of them were asked.
fn busy(status: &Status) -> String {
    // That a request was refused has its line in the access log.
    tracing::debug!(detail = status.message(), "a worker is busy");
    let short = Shortage::of(status).map(|short| format!(": {}", short.told()));
    format!("all workers are busy{}", short.unwrap_or_default())
}

fn gone() -> Cut {
    Cut::Client(DispatchError::new(ErrorCode::Cancelled, "the client went away"))
}

/// What a worker sent can't be right: it is not passed on, and another worker is asked.
fn broken(nonsense: &Nonsense) -> Cut {
    Cut::Worker(DispatchError::new(ErrorCode::Corrupt, nonsense.to_string()))
}

/// The deadline came while no worker could take the request over.
fn waited_in_vain(refused: &DispatchError) -> DispatchError {
    let message =
        format!("the request lost its worker and waited for another until its deadline: {refused}");
    DispatchError::new(ErrorCode::Timeout, message)
}

fn timed_out() -> DispatchError {
    let message =
        "the request's deadline passed before it was done; ask for fewer tokens or allow more time";
    DispatchError::new(ErrorCode::Timeout, message)
}
