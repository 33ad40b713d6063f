//! Takes checked requests and starts them: permit, render, tokenize, dispatch.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cluster::telemetry::Metrics;
use cluster::{ErrorCode, Lifecycle};
use futures::future::try_join_all;
use scheduler::{StreamLimits, Streams};
use tokio::time::timeout_at;
use words::{ClientId, Generation, RequestId};

use crate::callers::access::AccessLog;
use crate::callers::caller::Endpoint;
use crate::callers::in_flight::{self, InFlight};
use crate::callers::keys::{Key, Keys};
use crate::dispatch::{
    DispatchError, DispatchRequest, Explained, Generate, GenerationEvent, GenerationStream, Pin,
    Readiness, Route, StreamPlace,
};
use crate::text::{Cancelled, Effort, TextPool};
use crate::{GatewayLimits, ModelCatalog, RequestError, RouterError, RouterMetrics};
use stream::{Permits, Started};

mod choice;
mod event;
pub mod params;
mod reading;
mod request;
mod stream;

pub use event::{Finish, TextEvent};
pub use request::{Input, Prompt, Task, TextRequest};
pub use stream::{TextStream, Usage};

/// What both gateways are made of.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The models served. All go to the same workers: more than one entry means more than one way
    /// to speak to one set of weights (another template, other defaults).
    pub models: ModelCatalog,
    /// What clients may ask for.
    pub limits: GatewayLimits,
    /// Keys of which clients must send one, in clear. Without these and without a file everyone may come.
    pub api_keys: Vec<String>,
    /// A file with more keys, hashed, with tenants and limits; read again when it changes.
    pub api_keys_file: Option<PathBuf>,
    /// Tell clients which workers served them.
    pub debug_headers: bool,
    /// Whether strangers may come and nothing keeps them out: said where operators look.
    pub insecure: bool,
    /// Let web pages of any origin call, not only those of this machine.
    pub cors: bool,
    /// Refuse fields that have no effect.
    pub strict_fields: bool,
    /// Write a line for each request.
    pub access_log: bool,
}

/// The core of HTTP and gRPC: text in, text out.
pub struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: RouterMetrics,
    pub(crate) keys: Keys,
    pub(crate) access: Arc<AccessLog>,
    generate: Arc<dyn Generate>,
    node: Lifecycle,
    pool: TextPool,
    in_flight: InFlight,
    streams: Streams,
}

// === impl Gateway ===

impl Gateway {
    /// A gateway to `generate`, counting into `metrics`, taking requests until `node` drains.
    ///
    /// # Errors
    /// [`RouterError`] if a limit makes no sense or threads can't be started.
    pub fn new(
        config: GatewayConfig,
        generate: Arc<dyn Generate>,
        metrics: &Metrics,
        node: Lifecycle,
    ) -> Result<Arc<Self>, RouterError> {
        let limits = &config.limits;
        limits.validate()?;
        let pool = TextPool::new(limits.text_threads, limits.text_queue)
            .map_err(|source| RouterError::Io { what: "starting the text threads", source })?;
        let streams_max = u32::try_from(limits.streams).unwrap_or(u32::MAX);
        let streams = Streams::new(StreamLimits { streams_max });
        let router_metrics = RouterMetrics::register(metrics);
        let keys = Keys::new(&config.api_keys, config.api_keys_file.clone())?;
        let in_flight = InFlight::new(limits.in_flight_bytes, limits.in_flight_bytes_per_client);
        let access = AccessLog::new(config.access_log);
        let gateway = Arc::new(Self {
            config,
            access,
            metrics: router_metrics,
            keys,
            generate,
            node,
            pool,
            in_flight,
            streams,
        });
        let weak = Arc::downgrade(&gateway);
        metrics.before_scrape(move || {
            if let Some(gateway) = weak.upgrade() {
                gateway.metrics.text_queue.set(gateway.pool.waiting() as i64);
                gateway.metrics.bytes_in_flight.set(gateway.in_flight.total() as i64);
            }
        });
        Ok(gateway)
    }

    /// The models served.
    #[must_use]
    pub fn models(&self) -> &ModelCatalog {
        &self.config.models
    }

    /// What clients may ask for.
    #[must_use]
    pub fn limits(&self) -> &GatewayLimits {
        &self.config.limits
    }

    /// Whether requests can be served.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let mut readiness = self.generate.readiness();
        if !self.node.gate().is_open() {
            readiness.ready = false;
            readiness.reasons.push("the router is draining".into());
        }
        readiness
    }

    /// Bytes of a request of `client`, to be counted from the first.
    pub(crate) fn receive(&self, client: ClientId) -> in_flight::Bytes {
        self.in_flight.begin(client)
    }

    /// Does slow work on a text of `client`, in its turn and off the async threads.
    ///
    /// # Errors
    /// [`RequestError`] if too many wait already, or the work fails.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        client: ClientId,
        bytes: usize,
        work: impl FnOnce(&Cancelled) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        Ok(self.pool.run(client, bytes, work).await?)
    }

    /// Does work that nobody waits for, until the router stops.
    pub(crate) fn aside(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopped = self.node.stopped().clone();
        self.node.tasks().spawn(async move { stopped.run_until_cancelled(work).await });
    }

    /// Starts a request, whose bytes count as in flight until they are tokens: returns once every one
    /// of its prompts is being worked on, so that what is wrong before the first token still is an
    /// error of its own.
    ///
    /// # Errors
    /// [`RequestError`] if the request is refused, by the router or by the workers.
    pub(crate) async fn start(
        &self,
        mut request: TextRequest,
        received: in_flight::Bytes,
    ) -> Result<TextStream, RequestError> {
        let (client, deadline) = (request.caller.client, request.caller.deadline());
        let key = self.keys.still_of(client)?;
        let width = request.task.sequences();
        let turn = key.as_ref().map(|key| key.allowance.begin(width)).transpose()?;
        if let Some(key) = &key {
            request.task.salt = key.salt(request.task.salt);
        }
        let work = self.node.gate().enter().map_err(|_| RequestError::stopping())?;
        self.generate.foresee(client, request.caller.call.explanation())?;
        let place = self.open(client)?;
        let permits = Permits { place: place.clone(), _turn: turn, work };
        let stopped = permits.work.cancelled().clone();
        let clock = self.metrics.start(&request.caller).of(key);
        let start = timeout_at(deadline.into(), self.place(request, received, place));
        let placed = tokio::select! {
            placed = start => placed,
            () = stopped.cancelled() => Ok(Err(RequestError::stopping())),
        };
        match placed {
            Ok(Ok((request, sources))) => {
                Ok(TextStream::new(Started { sources, request, clock, permits }))
            }
            Ok(Err(error)) => Err(clock.refused(error)),
            Err(_) => {
                let timeout_ms = deadline.saturating_duration_since(clock.received()).as_millis();
                Err(clock.refused(RequestError::Timeout { timeout_ms: timeout_ms as u64 }))
            }
        }
    }

    /// Whether whoever comes with this key may see which workers serve. A tenant never may; who comes without being one may where the
    /// router says so to all.
    pub(crate) fn names_workers_to(&self, key: Option<&Key>) -> bool {
        let is_operator = key.is_some_and(|key| key.is_operator);
        let is_tenant = key.is_some_and(|key| key.tenant.is_some());
        is_operator || (self.config.debug_headers && !is_tenant)
    }

    /// Where a request would go now, one answer for each of its prompts. It is read as if it were to be served, and costs its client as much.
    ///
    /// # Errors
    /// [`RequestError`] as [`Gateway::start`] gives before anything is placed.
    pub(crate) async fn explain(
        &self,
        mut request: TextRequest,
        received: in_flight::Bytes,
    ) -> Result<Vec<(Generation, Explained)>, RequestError> {
        let key = self.keys.still_of(request.caller.client)?;
        let _turn = key.as_ref().map(|key| key.allowance.begin(1)).transpose()?;
        if let Some(key) = &key {
            request.task.salt = key.salt(request.task.salt);
        }
        let deadline = request.caller.deadline();
        let timeout_ms = request.caller.timeout.as_millis() as u64;
        let read = timeout_at(deadline.into(), self.read(request, received)).await;
        let (request, prompts) = read.map_err(|_| RequestError::Timeout { timeout_ms })??;
        let explained = |generation| {
            let explained = self.generate.explain(&generation);
            (generation, explained)
        };
        Ok(self.generations(&request, &prompts)?.into_iter().map(explained).collect())
    }

    /// Counts a request that was refused before it could be started.
    pub fn refused(&self, endpoint: Endpoint, code: ErrorCode) {
        self.metrics.refused(endpoint, code.into());
    }

    async fn place(
        &self,
        request: TextRequest,
        received: in_flight::Bytes,
        place: StreamPlace,
    ) -> Result<(TextRequest, Vec<(Prompt, GenerationStream, Route)>), RequestError> {
        let (request, prompts) = self.read(request, received).await?;
        let generations = self.generations(&request, &prompts)?;
        let (received, deadline) = (request.caller.received, request.caller.deadline());
        // An echo goes out before the first token, and names the weights, too.
        let at_once = generations.len() > 1 || request.task.echo;
        let pin = if at_once { Pin::by_placement() } else { Pin::by_token() };
        let dispatch = |generation| {
            let (pin, place) = (pin.clone(), Some(place.clone()));
            let explanation = request.caller.call.explanation().cloned();
            let request =
                DispatchRequest { generation, received, deadline, pin, place, explanation };
            self.dispatch(request)
        };
        let streams = generations.into_iter().map(dispatch);
        let started = try_join_all(streams).await?;
        let sources = prompts.into_iter().zip(started).map(|(p, (stream, r))| (p, stream, r));
        Ok((request, sources.collect()))
    }

    /// Turns a request's text into tokens.
    async fn read(
        &self,
        request: TextRequest,
        received: in_flight::Bytes,
    ) -> Result<(TextRequest, Vec<Prompt>), RequestError> {
        let (client, tokens_max) = (request.caller.client, self.tokens_max(&request));
        let bytes = request.task.input.bytes();
        let read = move |cancelled: &Cancelled| {
            let effort = Effort { tokens_max, cancelled: cancelled.clone() };
            let read = reading::read(request, &effort);
            drop(received);
            read
        };
        self.work(client, bytes, read).await?
    }

    /// Starts one prompt, and waits until it is being worked on.
    async fn dispatch(
        &self,
        request: DispatchRequest,
    ) -> Result<(GenerationStream, Route), DispatchError> {
        let mut stream = self.generate.generate(request).await?;
        match stream.next().await {
            Some(Ok(GenerationEvent::Started(route))) => Ok((stream, route)),
            Some(Err(error)) => Err(error),
            other => Err(DispatchError::new(
                ErrorCode::Internal,
                format!("the dispatcher began with {other:?}"),
            )),
        }
    }

    fn generations(
        &self,
        request: &TextRequest,
        prompts: &[Prompt],
    ) -> Result<Vec<Generation>, RequestError> {
        let TextRequest { caller, task } = request;
        let (param, params) = (task.input_name, &task.params);
        let limit = self.tokens_max(request);
        let generation = |(index, prompt): (usize, &Prompt)| {
            let count = prompt.tokens.len();
            if count == 0 {
                return Err(RequestError::invalid(param, "the prompt is empty"));
            }
            let context = task.model.context_tokens_max;
            if count > limit {
                let problem = format!("of {limit} tokens: the prompt has {count}; shorten it");
                return Err(RequestError::context_length(param, context as usize, &problem));
            }
            Ok(Generation {
                id: part_id(&caller.id, index, prompts.len()),
                prompt: Arc::clone(&prompt.tokens),
                generated: Arc::default(),
                choices: (0..params.n).collect(),
                sampling: params.sampling.clone(),
                stop: params.stop_rules(count, context, param)?,
                prompt_logprobs: params.sampling.logprobs.filter(|_| task.echo),
                salt: task.salt.clone(),
                client: caller.client,
                targets: caller.targets,
            })
        };
        prompts.iter().enumerate().map(generation).collect()
    }

    /// The most tokens that one of the request's prompts can have.
    fn tokens_max(&self, request: &TextRequest) -> usize {
        let key = self.keys.of(request.caller.client).and_then(|key| key.context_tokens_max);
        let most = self.limits().prompt_tokens.min(request.task.model.context_tokens_max as usize);
        most.min(key.unwrap_or(usize::MAX))
    }

    /// A place among the streams.
    fn open(&self, client: ClientId) -> Result<StreamPlace, RequestError> {
        let opened = self.streams.open(client, Instant::now());
        opened.map(StreamPlace::new).map_err(|full| RequestError::Busy {
            message: format!("{full}: {} at once at most", self.limits().streams),
            retry_after: full.retry_after,
        })
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Each prompt of a request is a request of its own to the workers.
fn part_id(id: &RequestId, index: usize, count: usize) -> RequestId {
    if count == 1 { id.clone() } else { RequestId(format!("{id}-{index}").into()) }
}
