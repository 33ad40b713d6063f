//! What is left of a body when its request is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use http::Version;
use http::header::EXPECT;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::Gateway;

/// What is read of it at most: as much as a generous limit on bodies would allow.
const REST_BYTES_MAX: usize = 64 << 20;
/// For as long. Whoever takes longer sees the connection close.
const REST_TIMEOUT: Duration = Duration::from_secs(5);

/// A body whose rest is read and forgotten, within bounds, when nobody wants it any more.
struct Heard {
    body: Option<Body>,
    gateway: Arc<Gateway>,
}

/// Lets a request's body be read on after its answer, whatever that is: a client that still writes when the connection
/// closes gets a reset instead of the answer that says why.
///
/// Who waits for leave to send (`Expect`) never gets it, and HTTP/2 ends a stream without its connection: nothing is
/// read of those.
pub(crate) fn read_to_the_end(request: Request, gateway: &Arc<Gateway>) -> Request {
    if request.version() > Version::HTTP_11 || request.headers().contains_key(EXPECT) {
        return request;
    }
    let gateway = Arc::clone(gateway);
    request.map(|body| Body::new(Heard { body: Some(body), gateway }))
}

async fn discard(mut body: Body) {
    let mut left = REST_BYTES_MAX;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else { break };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(REST_TIMEOUT, read).await;
}

// === impl Heard ===

impl http_body::Body for Heard {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            self.gateway.aside(discard(body));
        }
    }
}
