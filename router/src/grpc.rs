//! The public gRPC service, over the same core as HTTP.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use axum::middleware;
use cluster::connections::ClientAddress;
use futures::Stream;
use http::Method;
use proto::v1;
use proto::v1::inference_server::{Inference, InferenceServer};
use tonic::service::Routes;
use tonic::{Code, Request, Response};
use uuid::Uuid;
use words::RequestId;

use crate::api::relay::Relay;
use crate::callers::access::{Call, Status};
use crate::callers::caller::{Caller, Endpoint};
use crate::callers::client;
use crate::gateway::TextRequest;
use crate::{Gateway, RequestError};
use intake::Received;
use messages::{Message, Messages};

mod intake;
mod messages;
mod reading;

/// Its name in metrics.
const NAME: Endpoint = Endpoint("grpc");

/// `baton.v1.Inference`.
#[derive(Clone, Debug)]
pub struct InferenceService {
    gateway: Arc<Gateway>,
}

/// A reply on its way to the wire.
struct Answer {
    relay: Relay<Messages>,
    /// What is written and not sent.
    out: VecDeque<Message>,
}

type ResponseStream = Pin<Box<dyn Stream<Item = Message> + Send>>;

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
        let names_workers = self.gateway.names_workers_to(key.as_deref());
        let owner = key.map(|key| key.client());
        let peer = request.extensions().get::<ClientAddress>();
        let peer = peer.map(|peer| client::of_address(peer.0));
        let client = owner.or(peer).unwrap_or_default();
        let held = request.extensions().get::<Received>().and_then(Received::take);
        let held = held.unwrap_or_else(|| self.gateway.receive(client));
        let grpc_timeout = cluster::rpc::timeout_of(request.metadata());
        let wire = request.into_inner();
        let timeout = reading::timeout(&wire, grpc_timeout, self.gateway.limits());
        let targets = wire.targets.map(Into::into).unwrap_or_default();
        let task = reading::read(wire, &self.gateway)?;
        let (received, call) = (call.received(), call.clone());
        let of_call = call.clone();
        let caller =
            Caller { id, endpoint: NAME, received, timeout, client, targets, call: of_call };
        let request = TextRequest { caller, task };
        let started = messages::started(&request);
        let stream = self.gateway.start(request, held).await?;
        let out = VecDeque::from([started(&stream)]);
        Ok(Answer { relay: Relay::new(stream, Messages { names_workers, call }), out })
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
            self.gateway.refused(NAME, error.code());
            messages::refused(&call, &error)
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
        let key = key.map_err(|error| messages::refused(&call, &error))?;
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
    async fn next(&mut self) -> Option<Message> {
        while self.out.is_empty() && !self.relay.is_done() {
            self.relay.next(&mut self.out).await;
        }
        self.out.pop_front()
    }
}
