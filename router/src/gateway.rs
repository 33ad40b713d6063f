//! Takes checked requests and starts them: permit, render, tokenize, dispatch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Lifecycle;
use cluster::telemetry::Metrics;
use futures::future::try_join_all;
use kv_cache::TokenId;
use scheduler::{Generation, RequestId};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use crate::completion::{Input, Permits, Prompt, Started, TextRequest, TextStream};
use crate::dispatch::{
    DispatchError, DispatchRequest, Generate, GenerationEvent, GenerationStream, Pin, Readiness,
    Route,
};
use crate::metrics::Endpoint;
use crate::served_model::ServedModel;
use crate::text::{Detokenizer, TextPool};
use crate::{GatewayLimits, ModelCatalog, RequestError, RouterError, RouterMetrics};

/// What both gateways are made of.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The models served. All go to the same workers: more than one entry means more than one way
    /// to speak to one set of weights (another template, other defaults).
    pub models: ModelCatalog,
    /// What clients may ask for.
    pub limits: GatewayLimits,
    /// Keys of which clients must send one; empty: everyone may come.
    pub api_keys: Vec<String>,
    /// Let web pages of any origin call, not only those of this machine.
    pub cors: bool,
    /// Refuse fields that have no effect.
    pub strict_fields: bool,
}

/// The core of HTTP and gRPC: text in, text out.
pub struct Gateway {
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: RouterMetrics,
    generate: Arc<dyn Generate>,
    node: Lifecycle,
    pool: TextPool,
    streams: Arc<Semaphore>,
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
        let streams = Arc::new(Semaphore::new(limits.streams.min(Semaphore::MAX_PERMITS)));
        let router_metrics = RouterMetrics::register(metrics);
        let gateway =
            Arc::new(Self { config, metrics: router_metrics, generate, node, pool, streams });
        let weak = Arc::downgrade(&gateway);
        metrics.before_scrape(move || {
            if let Some(gateway) = weak.upgrade() {
                gateway.metrics.text_queue.set(gateway.pool.waiting() as i64);
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

    /// Starts a request: returns once every one of its prompts is being worked on, so that what is
    /// wrong before the first token still is an error of its own.
    ///
    /// # Errors
    /// [`RequestError`] if the request is refused, by the router or by the workers.
    pub async fn start(&self, request: TextRequest) -> Result<TextStream, RequestError> {
        let work = self.node.gate().enter().map_err(|_| RequestError::stopping())?;
        let stream = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| self.full())?;
        let permits = Permits { _stream: stream, work };
        let stopped = permits.work.cancelled().clone();
        let deadline = request.deadline();
        let clock = self.metrics.start(request.endpoint, request.received);
        let start = timeout_at(deadline.into(), self.place(request));
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

    /// Counts a request that was refused before it could be started.
    pub fn refused(&self, endpoint: Endpoint, error: &RequestError) {
        self.metrics.refused(endpoint, error.code().into());
    }

    async fn place(
        &self,
        request: TextRequest,
    ) -> Result<(TextRequest, Vec<(Prompt, GenerationStream, Route)>), RequestError> {
        let (request, prompts) = self.pool.run(move || read(request)).await??;
        let generations = self.generations(&request, &prompts)?;
        let deadline = request.deadline();
        // An echo goes out before the first token, and names the weights, too.
        let at_once = generations.len() > 1 || request.echo;
        let pin = if at_once { Pin::by_placement() } else { Pin::by_token() };
        let streams = generations.into_iter().map(|g| self.dispatch(g, deadline, pin.clone()));
        let started = try_join_all(streams).await?;
        let sources = prompts.into_iter().zip(started).map(|(p, (stream, r))| (p, stream, r));
        Ok((request, sources.collect()))
    }

    /// Starts one prompt, and waits until it is being worked on.
    async fn dispatch(
        &self,
        generation: Generation,
        deadline: Instant,
        pin: Pin,
    ) -> Result<(GenerationStream, Route), DispatchError> {
        let request = DispatchRequest { generation, deadline, pin };
        let mut stream = self.generate.generate(request).await?;
        match stream.next().await {
            Some(Ok(GenerationEvent::Started(route))) => Ok((stream, route)),
            Some(Err(error)) => Err(error),
            other => Err(DispatchError {
                code: cluster::ErrorCode::Internal,
                message: format!("the dispatcher began with {other:?}"),
                retry_after: None,
            }),
        }
    }

    fn generations(
        &self,
        request: &TextRequest,
        prompts: &[Prompt],
    ) -> Result<Vec<Generation>, RequestError> {
        let param = prompt_param(request);
        let limit = self.limits().prompt_tokens.min(request.model.context_tokens_max as usize);
        let generation = |(index, prompt): (usize, &Prompt)| {
            let count = prompt.tokens.len();
            if count == 0 {
                return Err(RequestError::invalid(param, "the prompt is empty"));
            }
            let context = request.model.context_tokens_max;
            if count > limit {
                let problem = format!("the prompt has {count}; shorten it");
                let context = context as usize;
                return Err(RequestError::context_length(param, context, limit, &problem));
            }
            Ok(Generation {
                id: part_id(&request.id, index, prompts.len()),
                prompt: Arc::clone(&prompt.tokens),
                generated: Arc::default(),
                choices: (0..request.params.n).collect(),
                sampling: request.params.sampling.clone(),
                stop: request.params.stop_rules(count, context, param)?,
                prompt_logprobs: request.params.sampling.logprobs.filter(|_| request.echo),
                salt: request.salt.clone(),
                client: request.client,
            })
        };
        prompts.iter().enumerate().map(generation).collect()
    }

    fn full(&self) -> RequestError {
        let message =
            format!("{} requests are being served, no more are taken", self.limits().streams);
        RequestError::Busy { message, retry_after: Duration::from_secs(1) }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Turns a request's text into tokens. Slow: for the text threads.
fn read(mut request: TextRequest) -> Result<(TextRequest, Vec<Prompt>), RequestError> {
    let model = Arc::clone(&request.model);
    let input = std::mem::replace(&mut request.input, Input::Texts(Vec::new()));
    let prompts = match input {
        Input::Chat(mut chat) => {
            let template = model.template.as_ref().ok_or_else(|| no_template(&model))?;
            // The template has printed the special tokens itself.
            let salt = &request.salt.0;
            let tokens = match &model.control_tokens {
                None => model.tokenizer.encode_chat(&template.render(*chat)?, salt)?,
                Some(control) => {
                    control.mark(&mut chat);
                    control.encode(&template.render(*chat)?, salt)?
                }
            };
            vec![Prompt { tokens: tokens.into(), echo: None }]
        }
        Input::Texts(texts) => texts
            .into_iter()
            .map(|text| {
                let tokens = model.tokenizer.encode(&text, true)?.into();
                Ok(Prompt { tokens, echo: request.echo.then_some(text) })
            })
            .collect::<Result<_, RequestError>>()?,
        Input::Tokens(prompts) => prompts
            .into_iter()
            .map(|tokens| {
                let echo = request.echo.then(|| text_of(&tokens, &request));
                Prompt { tokens: tokens.into(), echo }
            })
            .collect(),
    };
    Ok((request, prompts))
}

/// The text of a prompt that was given as tokens.
fn text_of(tokens: &[TokenId], request: &TextRequest) -> String {
    let tokenizer = Arc::clone(&request.model.tokenizer);
    let mut reader = Detokenizer::new(tokenizer, &[], request.params.skip_special_tokens);
    let mut text = String::new();
    tokens.iter().for_each(|&token| reader.push(token, &mut text));
    reader.finish(&mut text);
    text
}

fn no_template(model: &ServedModel) -> RequestError {
    let name = &model.name;
    let message = format!("`{name}` has no chat template: use /v1/completions, or another model");
    RequestError::unsupported("messages", message)
}

/// The field that the prompt came in, for error messages.
fn prompt_param(request: &TextRequest) -> &'static str {
    match request.endpoint {
        Endpoint::Chat => "messages",
        Endpoint::Completions => "prompt",
        Endpoint::Grpc => "input",
    }
}

/// Each prompt of a request is a request of its own to the workers.
fn part_id(id: &RequestId, index: usize, count: usize) -> RequestId {
    if count == 1 { id.clone() } else { RequestId(format!("{id}-{index}").into()) }
}
