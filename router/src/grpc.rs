//! The public gRPC service, over the same core as HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::middleware;
use cluster::connections::ClientAddress;
use futures::Stream;
use http::Method;
use proto::v1;
use proto::v1::inference_request::Input as WireInput;
use proto::v1::inference_response::{ChoiceFinished, Delta, Event, Started, Usage};
use proto::v1::inference_server::{Inference, InferenceServer};
use serde_json::json;
use tonic::service::Routes;
use tonic::{Code, Request, Response};
use uuid::Uuid;
use words::{ClientId, RequestId, TenantSalt, TokenLogprob, WorkerId};

use crate::api::openai::{Ignored, MessageRules};
use crate::callers::access::{Call, Status};
use crate::callers::client;
use crate::gateway::params::{Params, check_token};
use crate::gateway::{Finish, Input, TextEvent, TextRequest, TextStream};
use crate::metrics::Endpoint;
use crate::served_model::ServedModel;
use crate::text::ChatRender;
use crate::{Gateway, RequestError};
use intake::Received;

mod intake;

/// `baton.v1.Inference`.
#[derive(Clone, Debug)]
pub struct InferenceService {
    gateway: Arc<Gateway>,
}

/// A stream of text on its way to the wire.
struct Answer {
    stream: TextStream,
    /// Sent before anything else.
    started: Option<Started>,
    /// Whether the client gets to know which workers served it.
    names_workers: bool,
    call: Call,
    done: bool,
}

type ResponseStream =
    Pin<Box<dyn Stream<Item = Result<v1::InferenceResponse, tonic::Status>> + Send>>;

// === impl InferenceService ===

impl InferenceService {
    /// The service, ready for a server.
    #[must_use]
    pub fn routes(gateway: Arc<Gateway>) -> Routes {
        let bytes_max = gateway.limits().body_bytes;
        let service = Self { gateway: Arc::clone(&gateway) };
        let server = InferenceServer::new(service).max_decoding_message_size(bytes_max);
        let receive = middleware::from_fn_with_state(gateway, intake::receive);
        Routes::new(server).into_axum_router().layer(receive).into()
    }

    async fn start(
        &self,
        request: Request<v1::InferenceRequest>,
        call: &Call,
        id: RequestId,
    ) -> Result<Answer, RequestError> {
        let key = self.gateway.keys.check(request.metadata().as_ref())?;
        key.iter().for_each(|key| call.of(key));
        let owner = key.map(|key| key.client());
        let peer = request.extensions().get::<ClientAddress>();
        let peer = peer.map(|peer| client::of_address(peer.0));
        let client = owner.or(peer).unwrap_or_default();
        let held = request.extensions().get::<Received>().and_then(Received::take);
        let held = held.unwrap_or_else(|| self.gateway.receive(client));
        let timeout = cluster::rpc::timeout_of(request.metadata());
        let request = self.read(request.into_inner(), id, call, timeout)?.of(client);
        let (request_id, model) = (request.id.to_string(), request.model.name.clone());
        let stream = self.gateway.start(request, held).await?;
        let prompt_tokens = stream.usage().prompt_tokens as u32;
        let started = Some(Started { request_id, model, prompt_tokens });
        let names_workers = self.gateway.config.debug_headers;
        Ok(Answer { stream, started, names_workers, call: call.clone(), done: false })
    }

    fn read(
        &self,
        wire: v1::InferenceRequest,
        id: RequestId,
        call: &Call,
        grpc_timeout: Option<Duration>,
    ) -> Result<TextRequest, RequestError> {
        let limits = self.gateway.limits();
        let name = Some(wire.model.as_str()).filter(|name| !name.is_empty());
        let model = Arc::clone(self.gateway.models().named(name)?);
        if wire.max_tokens == Some(0) {
            return Err(RequestError::invalid("max_tokens", "`max_tokens` must be at least 1"));
        }
        let asked =
            [grpc_timeout, (wire.timeout_ms > 0).then(|| Duration::from_millis(wire.timeout_ms))];
        let timeout = asked.into_iter().flatten().fold(limits.request_timeout, Duration::min);
        let params = params(&wire).check(&model, limits)?;
        let input = input(wire.input, &model, limits.messages)?;
        Ok(TextRequest {
            id,
            endpoint: Endpoint::Grpc,
            received: call.received(),
            timeout,
            params: Arc::new(params),
            model,
            input,
            echo: false,
            salt: TenantSalt::default(),
            client: ClientId::default(),
            call: call.clone(),
        })
    }

    /// A call of `method` that has just come in, and its id.
    fn begin<T>(&self, request: &Request<T>, method: &str) -> (Call, RequestId) {
        let id = RequestId(Uuid::now_v7().simple().to_string().into());
        let peer = request.extensions().get::<ClientAddress>().map(|peer| peer.0);
        let path = format!("/baton.v1.Inference/{method}");
        let call = self.gateway.access.begin(Method::POST, &path, id.clone(), peer);
        (call, id)
    }
}

#[tonic::async_trait]
impl Inference for InferenceService {
    type GenerateStream = ResponseStream;

    async fn generate(
        &self,
        request: Request<v1::InferenceRequest>,
    ) -> Result<Response<ResponseStream>, tonic::Status> {
        let (call, id) = self.begin(&request, "Generate");
        let answer = self.start(request, &call, id).await.map_err(|error| {
            self.gateway.refused(Endpoint::Grpc, &error);
            refused(&call, &error)
        })?;
        call.answered(Status::Grpc(Code::Ok));
        let messages = futures::stream::unfold(answer, |mut answer| async move {
            let message = answer.next().await?;
            Some((message, answer))
        });
        Ok(Response::new(Box::pin(messages)))
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, tonic::Status> {
        let (call, _) = self.begin(&request, "ListModels");
        let key = self.gateway.keys.check(request.metadata().as_ref());
        let key = key.map_err(|error| refused(&call, &error))?;
        key.iter().for_each(|key| call.of(key));
        call.answered(Status::Grpc(Code::Ok));
        let models = self.gateway.models().all().iter().map(|model| {
            let context_tokens_max = model.context_tokens_max;
            v1::list_models_response::Model { id: model.name.clone(), context_tokens_max }
        });
        Ok(Response::new(v1::ListModelsResponse { models: models.collect() }))
    }
}

// === impl Answer ===

impl Answer {
    async fn next(&mut self) -> Option<Result<v1::InferenceResponse, tonic::Status>> {
        if self.done {
            return None;
        }
        let event = match self.started.take() {
            Some(started) => Event::Started(started),
            None => match self.stream.next().await {
                Some(Ok(event)) => wire_event(event),
                Some(Err(error)) => {
                    self.done = true;
                    return Some(Err(refused(&self.call, &error)));
                }
                None => {
                    self.done = true;
                    Event::Usage(self.usage())
                }
            },
        };
        Some(Ok(v1::InferenceResponse { event: Some(event) }))
    }

    fn usage(&self) -> Usage {
        let (usage, route) = (self.stream.usage(), self.stream.route());
        let name = |worker: Option<&WorkerId>| {
            worker.filter(|_| self.names_workers).map(ToString::to_string).unwrap_or_default()
        };
        Usage {
            prompt_tokens: usage.prompt_tokens as u32,
            completion_tokens: usage.completion_tokens as u32,
            cached_tokens: usage.cached_tokens as u32,
            handoff: route.prefill.is_some(),
            prefill_worker_id: name(route.prefill.as_ref()),
            decode_worker_id: name(Some(&route.decode)),
            system_fingerprint: route.fingerprint.clone(),
        }
    }
}

/// Notes why a call is refused, or broke off.
fn refused(call: &Call, error: &RequestError) -> tonic::Status {
    let status = error.status();
    call.answered(Status::Grpc(status.code()));
    call.failed(error.reason());
    status
}

fn wire_event(event: TextEvent) -> Event {
    match event {
        TextEvent::Delta(delta) => {
            let logprob = |found: &TokenLogprob| found.into();
            Event::Delta(Delta {
                choice: delta.choice,
                text: delta.text,
                token_ids: delta.tokens.iter().map(|token| token.id).collect(),
                logprobs: delta
                    .tokens
                    .iter()
                    .filter_map(|token| token.logprob.as_ref().map(logprob))
                    .collect(),
            })
        }
        TextEvent::Finished { choice, reason } => {
            let (kind, stop) = match reason {
                Finish::StopToken(_) => (v1::FinishKind::Stop, None),
                Finish::StopString(stop) => (v1::FinishKind::Stop, Some(stop)),
                Finish::Length => (v1::FinishKind::Length, None),
            };
            Event::Finished(ChoiceFinished { choice, kind: kind.into(), stop })
        }
    }
}

fn params(wire: &v1::InferenceRequest) -> Params {
    Params {
        n: Some(if wire.n == 0 { 1 } else { wire.n.into() }),
        max_tokens: wire.max_tokens.map(Into::into),
        max_tokens_name: "max_tokens",
        min_tokens: Some(wire.min_tokens.into()),
        temperature: wire.temperature.map(Into::into),
        top_p: wire.top_p.map(Into::into),
        top_k: wire.top_k.map(Into::into),
        min_p: wire.min_p.map(Into::into),
        repetition_penalty: wire.repetition_penalty.map(Into::into),
        frequency_penalty: wire.frequency_penalty.map(Into::into),
        presence_penalty: wire.presence_penalty.map(Into::into),
        logit_bias: wire.logit_bias.iter().map(|entry| (entry.token, entry.bias.into())).collect(),
        seed: wire.seed,
        logprobs: wire.logprobs.map(Into::into),
        logprobs_name: "logprobs",
        stop: wire.stop.clone(),
        stop_token_ids: wire.stop_token_ids.iter().copied().map(Into::into).collect(),
        ignore_eos: wire.ignore_eos,
        ..Params::default()
    }
}

fn input(
    wire: Option<WireInput>,
    model: &ServedModel,
    messages_max: usize,
) -> Result<Input, RequestError> {
    match wire {
        Some(WireInput::Text(text)) => Ok(Input::Texts(vec![text])),
        Some(WireInput::TokenIds(tokens)) => {
            let check = |&id: &u32| check_token("token_ids", id.into(), model);
            tokens
                .ids
                .iter()
                .map(check)
                .collect::<Result<_, _>>()
                .map(|ids| Input::Tokens(vec![ids]))
        }
        Some(WireInput::Chat(chat)) => {
            let message = |message: v1::ChatMessage| json!({"role": message.role, "content": message.content});
            let messages = chat.messages.into_iter().map(message).collect();
            let rules = MessageRules { most: messages_max, template: None };
            let messages = rules.check(messages, &mut Ignored::default())?;
            let render = ChatRender { messages, now: SystemTime::now(), ..ChatRender::default() };
            Ok(Input::Chat(Box::new(render)))
        }
        None => Err(RequestError::invalid("input", "one of text, token_ids and chat is needed")),
    }
}
