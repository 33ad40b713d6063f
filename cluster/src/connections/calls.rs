//! Notes the calls on a connection: a layer for HTTP and gRPC servers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use super::readers::Reader;
use super::{Activity, Call};
use crate::security::Shown;

/// Whom a gRPC call comes from; tonic puts it among the request's extensions.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The addresses of both ends.
    pub tcp: TcpConnectInfo,
    /// What happens on the connection.
    pub activity: Arc<Activity>,
    /// Who it has shown to be.
    pub shown: Shown,
}

/// Counts a connection's calls from their first byte to the last of their answers, and tells them
/// whom they come from (a [`ClientAddress`](super::ClientAddress) among the request's extensions).
#[derive(Clone, Debug, Default)]
pub struct CountCalls {
    /// The connection; `None`: the one that the server names in each request.
    activity: Option<Arc<Activity>>,
}

/// The service that counts.
#[derive(Clone, Debug)]
pub struct CountCallsService<S> {
    inner: S,
    activity: Option<Arc<Activity>>,
}

/// An answer that is counted as long as it is being written.
#[derive(Debug)]
pub struct Counted<B> {
    body: B,
    reader: Reader,
    _call: Option<Call>,
}

// === impl CountCalls ===

impl CountCalls {
    /// Counts the calls of one connection.
    #[must_use]
    pub fn of(activity: &Arc<Activity>) -> Self {
        Self { activity: Some(Arc::clone(activity)) }
    }
}

impl<S> Layer<S> for CountCalls {
    type Service = CountCallsService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountCallsService { inner, activity: self.activity.clone() }
    }
}

// === impl CountCallsService ===

impl<S, A, B> Service<Request<A>> for CountCallsService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Counted<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<A>) -> Self::Future {
        let caller = request.extensions().get::<Caller>().cloned();
        if let Some(caller) = &caller {
            // Where tonic looks for addresses.
            request.extensions_mut().insert(caller.tcp.clone());
        }
        let activity = self.activity.clone().or(caller.map(|caller| caller.activity));
        if let Some(activity) = &activity {
            request.extensions_mut().insert(activity.client());
        }
        let call = activity.map(|activity| activity.call());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let reader = Reader::current();
            Ok(answer.await?.map(|body| Counted { body, reader, _call: call }))
        })
    }
}

// === impl Counted ===

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.reader.take();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = &frame {
            self.reader.owe();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
