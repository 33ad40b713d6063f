//! What other processes answer, made fit to be read.
//!
//! The library that reads answers panics on a status whose `grpc-status-details-bin` is no base64: a bit that
//! flips in a trailer, or a peer that means it, would take the whole request down with the task that reads.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::{MapOk, TryFutureExt as _};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tower::Service;

/// A status's details, as its library names them.
const DETAILS: &str = "grpc-status-details-bin";

/// A channel whose answers can be read, whatever they are.
#[derive(Clone, Debug)]
pub struct Readable<S>(S);

/// An answer's messages and trailers.
struct Checked(Body);

type Check = fn(Response<Body>) -> Response<Body>;

/// Leaves out what would end the task that reads it. What the status says besides stays.
pub fn drop_unreadable(headers: &mut HeaderMap) {
    if !headers.contains_key(DETAILS) {
        return;
    }
    let metadata = MetadataMap::from_headers(std::mem::take(headers));
    let are_readable = metadata.get_all_bin(DETAILS).iter().all(|value| value.to_bytes().is_ok());
    *headers = metadata.into_headers();
    if !are_readable {
        headers.remove(DETAILS);
    }
}

// === impl Readable ===

impl<S> Readable<S> {
    /// Those that come by `channel`.
    pub fn of(channel: S) -> Self {
        Self(channel)
    }
}

impl<S> Service<Request<Body>> for Readable<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = MapOk<S::Future, Check>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request).map_ok(check)
    }
}

fn check(mut answer: Response<Body>) -> Response<Body> {
    drop_unreadable(answer.headers_mut());
    answer.map(|body| Body::new(Checked(body)))
}

// === impl Checked ===

impl http_body::Body for Checked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.0).poll_frame(context).map_ok(|mut frame| {
            frame.trailers_mut().map(drop_unreadable);
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::base64("aGk=", true)]
    #[case::without_padding("aGk", true)]
    #[case::none("no, none!", false)]
    #[case::cut("a", false)]
    fn a_status_that_would_not_be_read_loses_its_details(
        #[case] details: &'static str,
        #[case] stays: bool,
    ) {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("8"));
        headers.insert("grpc-message", HeaderValue::from_static("full"));
        headers.insert(DETAILS, HeaderValue::from_static(details));
        drop_unreadable(&mut headers);
        assert_eq!(headers.contains_key(DETAILS), stays);
        let status = Status::from_header_map(&headers).unwrap();
        assert_eq!((status.code(), status.message()), (tonic::Code::ResourceExhausted, "full"));
    }

    /// Both places where a status may be: the head of an answer without messages, and the trailers.
    #[tokio::test]
    async fn heads_and_trailers_are_checked() {
        let odd = || {
            let value = HeaderValue::from_static("!");
            HeaderMap::from_iter([(http::HeaderName::from_static(DETAILS), value)])
        };
        let frames = futures::stream::iter([Ok::<_, Status>(Frame::<Bytes>::trailers(odd()))]);
        let mut answer = Response::new(Body::new(http_body_util::StreamBody::new(frames)));
        *answer.headers_mut() = odd();
        let answer = check(answer);
        assert!(answer.headers().is_empty());
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
        assert_eq!(body.trailers(), Some(&HeaderMap::new()));
    }
}
