//! Answers as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use serde::Serialize;
use tracing::Span;

use super::openai::fields::StreamUsage;
use super::openai::shapes::{Envelope, Piece, Shape, UsageShape};
use crate::RequestError;
use crate::gateway::{TextEvent, TextStream, Usage};
use crate::http::error::HttpError;
use crate::http::headers;

/// A sign of life. No empty line follows: to old clients that would be an event without data.
const SIGN_OF_LIFE: &[u8] = b": keep-alive\n";
/// The end of a chunk that could tell of tokens, and doesn't.
const UNUSED: &[u8] = b"],\"usage\":null}\n\n";
/// What is there already is sent in one piece, up to about this size. Small, as a client that reads slowly has to take
/// one whole within its time.
const FRAME_BYTES: usize = 4 << 10;
/// nginx buffers answers unless told not to.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a stream tells beside the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) usage: StreamUsage,
    /// Between signs of life.
    pub(crate) keep_alive: Duration,
}

/// Writes a stream as events.
struct SseWriter<S> {
    stream: TextStream,
    shape: S,
    envelope: Envelope,
    /// Every chunk begins with this and ends with `tail`; the choice goes between. Empty before the
    /// first.
    head: Vec<u8>,
    tail: Vec<u8>,
    usage: StreamUsage,
    keep_alive: Duration,
    opened: Vec<bool>,
    out: Vec<u8>,
    done: bool,
    /// The call's, which lasts as long as its answer. Not entered for each piece: nothing here logs.
    _span: Span,
}

#[derive(Serialize)]
struct UsageChunk<'a> {
    #[serde(flatten)]
    envelope: &'a Envelope,
    choices: [(); 0],
    usage: UsageShape,
}

/// Answers with the stream, headers at once. Dropping the body, as the server does when the client
/// goes away, drops the stream and cancels the work.
pub(crate) fn respond<S: Shape>(
    shape: S,
    envelope: Envelope,
    stream: TextStream,
    report: Report,
) -> Response {
    let mut route = http::HeaderMap::new();
    headers::add_route(&mut route, &stream);
    let writer = SseWriter::new(shape, envelope, stream, report);
    let frames = futures::stream::unfold(writer, async |mut writer| {
        let frame = writer.frame().await?;
        Some((Ok::<_, Infallible>(frame), writer))
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.extend(route);
    response
}

// === impl SseWriter ===

impl<S: Shape> SseWriter<S> {
    fn new(shape: S, envelope: Envelope, stream: TextStream, report: Report) -> Self {
        let Report { usage, keep_alive } = report;
        Self {
            opened: vec![false; stream.choices()],
            stream,
            shape,
            envelope,
            head: Vec::new(),
            // With usage asked for, every chunk has the field.
            tail: if usage.last { UNUSED.to_vec() } else { b"]}\n\n".to_vec() },
            usage,
            keep_alive,
            out: Vec::new(),
            done: false,
            _span: Span::current(),
        }
    }

    /// The next piece of the body: all events that are there, or a sign of life.
    async fn frame(&mut self) -> Option<Bytes> {
        while !self.done && self.out.is_empty() {
            match tokio::time::timeout(self.keep_alive, self.stream.next()).await {
                Err(_) => return Some(Bytes::from_static(SIGN_OF_LIFE)),
                Ok(event) => self.write(event),
            }
            while !self.done && self.out.len() < FRAME_BYTES {
                let Some(event) = self.stream.try_next() else { break };
                self.write(Some(event));
            }
        }
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).into())
    }

    fn write(&mut self, event: Option<Result<TextEvent, RequestError>>) {
        match event {
            Some(Ok(event)) => self.event(&event),
            Some(Err(error)) => return self.fail(error),
            None => {}
        }
        if self.stream.is_finished() {
            self.finish();
        }
    }

    /// Writes what chunks begin with: who answers is certain with the first of them.
    fn open(&mut self) {
        self.envelope.answered_by(&self.stream);
        self.head = b"data: ".to_vec();
        self.envelope.write(&mut self.head);
        self.head.pop();
        self.head.extend_from_slice(b",\"choices\":[");
    }

    fn event(&mut self, event: &TextEvent) {
        if self.head.is_empty() {
            self.open();
        }
        let opened = &mut self.opened[event.choice() as usize];
        let opens = !std::mem::replace(opened, true);
        if self.usage.running {
            self.tail = running(self.stream.usage());
        }
        let Self { shape, head, tail, out, .. } = self;
        shape.pieces(event, opens, &mut |piece| {
            out.extend_from_slice(head);
            piece.write(out);
            out.extend_from_slice(tail);
        });
    }

    fn finish(&mut self) {
        if self.usage.last {
            let usage = self.stream.usage().into();
            self.out.extend_from_slice(b"data: ");
            let envelope = &self.envelope;
            UsageChunk { envelope, choices: [], usage }.write(&mut self.out);
            self.out.extend_from_slice(b"\n\n");
        }
        self.out.extend_from_slice(b"data: [DONE]\n\n");
        self.done = true;
    }

    /// The status has long been sent: the error goes where the next chunk would have gone, and
    /// there is no `[DONE]`.
    fn fail(&mut self, error: RequestError) {
        let error = HttpError::from(error);
        self.out.extend_from_slice(b"event: error\ndata: ");
        error.write(&mut self.out);
        self.out.extend_from_slice(b"\n\n");
        self.done = true;
    }
}

/// The end of a chunk that tells of the tokens so far.
fn running(usage: Usage) -> Vec<u8> {
    let mut tail = b"],\"usage\":".to_vec();
    UsageShape::from(usage).write(&mut tail);
    tail.extend_from_slice(b"}\n\n");
    tail
}
