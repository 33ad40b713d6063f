//! Replies as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use tracing::Span;

use super::relay::{Relay, Reply};
use crate::gateway::TextStream;
use crate::http::headers;

/// A sign of life. No empty line follows: to old clients that would be an event without data.
const SIGN_OF_LIFE: &[u8] = b": keep-alive\n";
/// What is there already is sent in one piece, up to about this size. Small, as a client that reads slowly has to take
/// one whole within its time.
const FRAME_BYTES: usize = 4 << 10;
/// nginx buffers answers unless told not to.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A stream's events, as pieces of a body.
struct Frames<R> {
    relay: Relay<R>,
    keep_alive: Duration,
    out: Vec<u8>,
    /// The call's, which lasts as long as its answer. Not entered for each piece: nothing here logs.
    _span: Span,
}

/// Answers with the stream, headers at once, and with a sign of life whenever nothing came for `keep_alive`. Dropping the
/// body, as the server does when the client goes away, drops the stream and cancels the work.
pub(super) fn respond<R: Reply>(reply: R, stream: TextStream, keep_alive: Duration) -> Response {
    let mut route = http::HeaderMap::new();
    headers::add_route(&mut route, &stream);
    let relay = Relay::new(stream, reply);
    let frames = Frames { relay, keep_alive, out: Vec::new(), _span: Span::current() };
    let frames = futures::stream::unfold(frames, async |mut frames| {
        let frame = frames.next().await?;
        Some((Ok::<_, Infallible>(frame), frames))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.extend(route);
    response
}

// === impl Frames ===

impl<R: Reply> Frames<R> {
    /// The next piece of the body: all events that are there, or a sign of life.
    async fn next(&mut self) -> Option<Bytes> {
        let Self { relay, keep_alive, out, .. } = self;
        while !relay.is_done() && out.is_empty() {
            if tokio::time::timeout(*keep_alive, relay.next(out)).await.is_err() {
                return Some(Bytes::from_static(SIGN_OF_LIFE));
            }
            while !relay.is_done() && out.len() < FRAME_BYTES && relay.try_next(out) {}
        }
        (!out.is_empty()).then(|| std::mem::take(out).into())
    }
}
