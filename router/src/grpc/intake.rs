//! Request messages on their way in: counted from the first byte, and given a time to arrive.
//!
//! The transport puts a message together before a service sees it; what it holds until then is counted here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use cluster::connections::ClientAddress;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use words::ClientId;

use crate::Gateway;
use crate::callers::{client, in_flight};

/// A decoded message takes a multiple of its bytes: token ids four times, short messages more.
const DECODED_FACTOR: usize = 4;

/// The bytes of one call's message; put among its extensions.
#[derive(Clone, Debug)]
pub(crate) struct Received(Arc<Mutex<Option<in_flight::Bytes>>>);

/// A body that is counted.
struct Counted {
    body: Body,
    received: Received,
    timeout: Pin<Box<Sleep>>,
}

// === impl Received ===

impl Received {
    /// The bytes, to be held for as long as they are in flight.
    pub(crate) fn take(&self) -> Option<in_flight::Bytes> {
        self.0.lock().take()
    }

    fn add(&self, bytes: usize) -> Result<(), Status> {
        match &mut *self.0.lock() {
            Some(received) => received.add(bytes * DECODED_FACTOR).map_err(|error| error.status()),
            None => Ok(()),
        }
    }
}

/// Counts the call's message.
pub(crate) async fn receive(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let address = request.extensions().get::<ClientAddress>();
    let client = address.map_or_else(ClientId::default, |address| client::of_address(address.0));
    let received = Received(Arc::new(Mutex::new(Some(gateway.receive(client)))));
    request.extensions_mut().insert(received.clone());
    let timeout = Box::pin(sleep(gateway.limits().body_timeout));
    next.run(request.map(|body| Body::new(Counted { body, received, timeout }))).await
}

// === impl Counted ===

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let counted = self.received.add(bytes).map(|()| frame);
                Poll::Ready(Some(counted.map_err(Into::into)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => self.timeout.as_mut().poll(cx).map(|()| {
                let late = Status::deadline_exceeded("the message did not arrive in time");
                Some(Err(late.into()))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
