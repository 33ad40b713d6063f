//! Asks every call on a worker's port who makes it, and lets in whom [`access`](super::access) admits.
//!
//! A call that was let in has a [`Shown`] among its extensions: the member who makes it, or nobody
//! where nobody is asked.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};
use tracing::warn;

use super::access;
use super::stream::Shown;
use crate::connections::Caller;
use crate::throttled::Throttled;

/// Of a path, in a log line.
const PATH_CHARS_MAX: usize = 100;

/// The layer: guards the calls of a server.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The cluster whose nodes are let in; `None`: nobody is asked.
    cluster: Option<Arc<str>>,
    refused: Arc<Mutex<Throttled>>,
}

/// The service that guards.
#[derive(Clone, Debug)]
pub struct GuardedCalls<S> {
    inner: S,
    guard: Guard,
}

// === impl Guard ===

impl Guard {
    /// Lets in whom the table admits, of `cluster`; everyone, if there is none.
    pub(super) fn new(cluster: Option<&str>) -> Self {
        Self { cluster: cluster.map(Arc::from), refused: Arc::default() }
    }
}

impl<S> Layer<S> for Guard {
    type Service = GuardedCalls<S>;

    fn layer(&self, inner: S) -> GuardedCalls<S> {
        GuardedCalls { inner, guard: self.clone() }
    }
}

// === impl GuardedCalls ===

impl<S> GuardedCalls<S> {
    /// Who makes the call, if it may.
    fn admit(&self, call: &http::Request<Body>) -> Result<Shown, Status> {
        let Some(cluster) = &self.guard.cluster else { return Ok(Shown::default()) };
        let caller = call.extensions().get::<Caller>();
        let shown = caller.and_then(|caller| caller.shown.identity());
        let member = shown.filter(|identity| *identity.cluster == **cluster);
        let path = call.uri().path();
        let role = member.map(|identity| identity.role);
        if access::of(path).is_some_and(|access| access.admits(role)) {
            return Ok(member.cloned().map(Shown::from).unwrap_or_default());
        }
        let name = shown.map_or_else(|| "a stranger".to_owned(), ToString::to_string);
        let addr = caller.and_then(|caller| caller.tcp.remote_addr);
        if let Some(count) = self.guard.refused.lock().note() {
            let path: String = path.chars().take(PATH_CHARS_MAX).collect();
            warn!(path, caller = %name, ?addr, count, "refused calls");
        }
        Err(Status::permission_denied(format!("{name} may not call {path} here")))
    }
}

impl<S> Service<http::Request<Body>> for GuardedCalls<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: http::Request<Body>) -> Self::Future {
        match self.admit(&call) {
            Ok(shown) => {
                call.extensions_mut().insert(shown);
                Either::Left(self.inner.call(call))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
