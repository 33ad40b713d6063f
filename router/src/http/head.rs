//! What of a head says where a request ends and whom it is for. A proxy that reads it one way and a server that reads
//! it another can be made to disagree on where the next request begins.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::error::HttpError;

/// Why a request of HTTP/1 is not read: its head could mean two things. HTTP/2 has frames, and one authority.
pub(crate) fn ambiguity(request: &Request) -> Option<&'static str> {
    if request.version() > Version::HTTP_11 {
        return None;
    }
    coding(request.headers()).or_else(|| host(request.version(), request.headers()))
}

/// Answers such a request, and closes: what follows on the connection may be anything.
pub(crate) fn refuse(problem: &'static str) -> Response {
    let mut answer = HttpError::bad(StatusCode::BAD_REQUEST, None, problem).into_response();
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn coding(headers: &HeaderMap) -> Option<&'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next()?;
    let is_plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    (!is_plain).then_some("Transfer-Encoding can only be `chunked`, once")
}

fn host(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => None,
        (None, _) => Some("the Host header is missing"),
        (Some(_), Some(_)) => Some("there is more than one Host header"),
        (Some(host), None) if is_host(host) => None,
        (Some(_), None) => Some("the Host header is no host"),
    }
}

/// Empty is who has no name to ask for.
fn is_host(host: &HeaderValue) -> bool {
    let is_authority = |host: &[u8]| !host.contains(&b'@') && Authority::try_from(host).is_ok();
    host.is_empty() || is_authority(host.as_bytes())
}
