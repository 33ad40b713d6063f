//! The receiving end: `baton.v1.KvTransfer`.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryFutureExt as _};
use proto::v1::kv_transfer_server;
use proto::{WireError, v1};
use tonic::body::Body;
use tonic::codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::framing::Requests;
use super::lanes::{Joined, Meeting, Pushes};
use super::wire::{Envelope, LaneOpen};
use crate::Receiver;
use crate::message::Open;
use crate::stats::add;
use crate::transport::Cut;

/// A stream says what it is for at once, or is none.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The one method.
pub(super) const PUSH: &str = "/baton.v1.KvTransfer/Push";
/// What bodies are.
pub(super) const GRPC: &str = "application/grpc";

/// Serves a [`Receiver`] to other processes.
///
/// Does what a generated server does, but for how frames become messages.
#[derive(Clone, Debug)]
pub struct KvTransferService {
    receiver: Receiver,
    meeting: Meeting,
}

type Replies = BoxStream<'static, Result<v1::PushResponse, Status>>;

// === impl KvTransferService ===

impl KvTransferService {
    /// The service, ready to be added to a server, with message limits that fit its pages.
    ///
    /// The server should set `TCP_NODELAY` on what it accepts and give streams at least
    /// [`crate::ReceiverConfig::window_bytes`] of window over all their lanes, or transfers crawl.
    #[must_use]
    pub fn server(receiver: Receiver) -> Self {
        Self { receiver, meeting: Meeting::default() }
    }

    fn serve(&self, open: Open, pushes: Pushes) -> Replies {
        let envelope = Envelope::new(open.id);
        let pushes = pushes.map(|push| push.map(Into::into)).boxed();
        self.receiver.serve(open, pushes).map(move |reply| Ok(envelope.seal_reply(reply))).boxed()
    }

    /// Counts a message that isn't what was sent. Its stream ends, and the sender opens another.
    fn note(&self, error: &WireError) {
        if error.damaged {
            add(&self.receiver.stats().corrupt_messages, 1);
            tracing::warn!(%error, "a transfer message was damaged");
        }
    }

    /// All answers of a stream come on lane 0.
    async fn serve_first(&self, open: Open, joined: Joined) -> Result<Replies, Status> {
        let merged = joined.merged(self.receiver.early_bytes_max()).await?;
        Ok(self.serve(open, merged.boxed()))
    }
}

impl KvTransferService {
    async fn push(self, mut requests: Requests) -> Result<Replies, Status> {
        let first = tokio::time::timeout(OPEN_TIMEOUT, requests.next()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no `open` came"))?;
        let open = first.ok_or_else(|| Status::invalid_argument("no `open` came"))??;
        let lane = LaneOpen::try_from(open).inspect_err(|error| self.note(error))?;
        let (envelope, service) = (Envelope::new(lane.open.id), self.clone());
        let pushes = requests.map(move |request| match request {
            Ok(request) => {
                let push = envelope.open_push(request).inspect_err(|error| service.note(error));
                push.map_err(|error| Cut(error.to_string()))
            }
            Err(status) => Err(Cut(status.to_string())),
        });
        if lane.lanes == 1 {
            return Ok(self.serve(lane.open, pushes.boxed()));
        }
        let joined = self.meeting.join(&lane, pushes.boxed())?;
        if lane.lane == 0 {
            return self.serve_first(lane.open, joined).await;
        }
        // Says nothing, but lasts as long as the stream.
        let over = stream::once(joined.over().map_ok(|()| None));
        Ok(over.filter_map(async |it| it.transpose()).boxed())
    }
}

impl NamedService for KvTransferService {
    const NAME: &'static str = kv_transfer_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for KvTransferService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        async move {
            let path = request.uri().path();
            if path != PUSH {
                return Ok(Status::new(Code::Unimplemented, path).into_http());
            }
            let requests = Requests::new(request.into_body(), service.receiver.message_bytes_max());
            Ok(service.push(requests).await.map_or_else(Status::into_http, response))
        }
        .boxed()
    }
}

fn response(replies: Replies) -> http::Response<Body> {
    let encoder = ProstCodec::<v1::PushResponse, v1::PushRequest>::default().encoder();
    let compress = SingleMessageCompressionOverride::default();
    let body = EncodeBody::new_server(encoder, replies, None, compress, None);
    let mut response = http::Response::new(Body::new(body));
    let content_type = http::HeaderValue::from_static(GRPC);
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests;
