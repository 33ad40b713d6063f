//! A whole call: method, path and headers as well as the body, on a gateway with keys.

use axum::body::Body;
use http::Request;

use crate::Target;
use crate::fixtures::gateway::STRICT;

pub(in crate::targets) const TARGET: Target = Target::new("http_call", run);

/// Takes a request as HTTP/1 would write it; what is none to the library that reads those, is none here.
fn run(input: &[u8]) {
    let Some(request) = request(input) else { return };
    STRICT.http(request).check();
}

fn request(input: &[u8]) -> Option<Request<Body>> {
    let (head, body) = split(input, b"\n\n").unwrap_or((input, b""));
    let mut lines = head.split(|&byte| byte == b'\n');
    let (method, path) = split(lines.next()?, b" ")?;
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let (name, value) = split(line, b": ")?;
        request = request.header(name, value);
    }
    request.body(Body::from(body.to_vec())).ok()
}

fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}
