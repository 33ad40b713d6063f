//! API keys.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use scheduler::ClientId;

use crate::{RequestError, client};

/// Checks that a request brings one of `keys` as `Authorization: Bearer KEY`; without keys, everyone
/// may come. gRPC metadata counts as headers. Returns the client that owns the key, if one was needed.
///
/// # Errors
/// [`RequestError::Unauthorized`], saying what to send.
pub fn check(keys: &[String], headers: &HeaderMap) -> Result<Option<ClientId>, RequestError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let value = headers.get(AUTHORIZATION).ok_or(RequestError::Unauthorized(
        "no API key: send one in the header `Authorization: Bearer KEY`",
    ))?;
    let key = value.as_bytes().split_at_checked(7);
    let (_, key) = key
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "))
        .ok_or(RequestError::Unauthorized("the Authorization header is not `Bearer KEY`"))?;
    // Every key is compared, and every byte: the time taken tells nothing about them.
    let known = keys.iter().fold(false, |known, candidate| known | same(candidate.as_bytes(), key));
    let owner = known.then(|| client::of_key(key));
    owner.map(Some).ok_or(RequestError::Unauthorized("this API key is not known"))
}

fn same(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |differing, (x, y)| differing | (x ^ y));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}
