//! Headers of our own: ids, the client's patience, where a request went.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use cluster::connections::ClientAddress;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;
use words::{ClientId, RequestId, TIME_MAX, Targets};

use crate::RequestError;
use crate::callers::access::{AccessLog, Call};
use crate::callers::caller::{Caller, Endpoint};
use crate::callers::client;
use crate::callers::keys::{Allowance, Standing};
use crate::dispatch::Explanation;
use crate::gateway::TextStream;

/// The request's name in the client's words; made up where the client has none.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The client's patience in milliseconds.
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-baton-timeout-ms");
/// What the client wants to be held to, in milliseconds: until the first token, between two tokens in the mean and at most.
const TTFT_TARGET_MS: HeaderName = HeaderName::from_static("x-baton-ttft-target-ms");
const TPOT_TARGET_MS: HeaderName = HeaderName::from_static("x-baton-tpot-target-ms");
const ITL_TARGET_MS: HeaderName = HeaderName::from_static("x-baton-itl-target-ms");
/// The worker that generates.
const DECODE_WORKER: HeaderName = HeaderName::from_static("x-baton-decode-worker");
/// The worker that computed the prompt, when its blocks were handed over.
const PREFILL_WORKER: HeaderName = HeaderName::from_static("x-baton-prefill-worker");
/// `handoff` or `local`.
const PATH: HeaderName = HeaderName::from_static("x-baton-path");
/// A client that wants to know why its request went where it went.
const EXPLAIN: HeaderName = HeaderName::from_static("x-baton-explain");
/// The decisions, with all candidates and their terms.
const PLACEMENT: HeaderName = HeaderName::from_static("x-baton-placement");
/// When to come back, finer than HTTP's own header; OpenAI's clients read it.
pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// Prompt tokens found in a cache.
const CACHED_TOKENS: HeaderName = HeaderName::from_static("x-baton-cached-tokens");

/// How headers begin that are of nobody but us.
const PREFIX: &str = "x-baton-";
/// Those of a request that are read.
const READ: [HeaderName; 5] = [TIMEOUT_MS, TTFT_TARGET_MS, TPOT_TARGET_MS, ITL_TARGET_MS, EXPLAIN];

/// Fields and headers of the request that had no effect.
pub(crate) const IGNORED_FIELDS: HeaderName = HeaderName::from_static("x-baton-ignored-fields");

/// What pages of other origins may read.
pub(crate) const EXPOSED: [HeaderName; 9] = [
    REQUEST_ID,
    PLACEMENT,
    DECODE_WORKER,
    PREFILL_WORKER,
    PATH,
    CACHED_TOKENS,
    IGNORED_FIELDS,
    http::header::RETRY_AFTER,
    RETRY_AFTER_MS,
];

/// Longer ids are replaced: they go into every log line.
const NAME_BYTES_MAX: usize = 128;

/// One call's names, and when it came in.
#[derive(Clone, Debug)]
pub(crate) struct CallIds {
    /// For the client: its own, if it sent a sane one.
    pub(crate) name: HeaderValue,
    /// For the house: unique, whatever clients send.
    pub(crate) request: RequestId,
    /// Whose it is.
    pub(crate) client: ClientId,
    /// What the access log will tell of it.
    pub(crate) call: Call,
}

// === impl CallIds ===

impl CallIds {
    /// The names of a call that has just come in.
    pub(crate) fn new(request: &Request, access: &Arc<AccessLog>) -> Self {
        let (name, id) = names(request.headers());
        let peer = request.extensions().get::<ClientAddress>().map(|peer| peer.0);
        let client = peer.map(client::of_address).unwrap_or_default();
        let call = access.begin(request.method().clone(), request.uri().path(), id.clone(), peer);
        Self { name, request: id, client, call }
    }

    /// Whoever made the call, with as much patience as its headers say, and at most what the server allows.
    pub(crate) fn caller(
        self,
        endpoint: Endpoint,
        headers: &HeaderMap,
        timeout_max: Duration,
    ) -> Result<Caller, RequestError> {
        let timeout = patience(headers, &TIMEOUT_MS)?.map_or(timeout_max, |it| it.min(timeout_max));
        let targets = targets(headers)?;
        let Self { request: id, client, call, .. } = self;
        let received = call.received();
        Ok(Caller { id, endpoint, received, timeout, client, targets, call })
    }
}

/// A call's name for its client, and for the house.
fn names(headers: &HeaderMap) -> (HeaderValue, RequestId) {
    let own = Uuid::now_v7().simple().to_string();
    let Some(name) = headers.get(REQUEST_ID).filter(|name| is_sane(name.as_bytes())) else {
        let name = HeaderValue::try_from(&own).unwrap_or(HeaderValue::from_static("-"));
        return (name, RequestId(own.into()));
    };
    // Two clients, or one that retries, may send the same name.
    let tail = &own[own.len() - 12..];
    let request = format!("{}.{tail}", name.to_str().unwrap_or_default());
    (name.clone(), RequestId(request.into()))
}

fn is_sane(name: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(allowed)
}

/// How soon the client wants its tokens.
fn targets(headers: &HeaderMap) -> Result<Targets, RequestError> {
    Ok(Targets {
        ttft: patience(headers, &TTFT_TARGET_MS)?,
        tpot: patience(headers, &TPOT_TARGET_MS)?,
        itl: patience(headers, &ITL_TARGET_MS)?,
    })
}

/// A time that the client names in one of its headers.
fn patience(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Duration>, RequestError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |problem: &str| {
        RequestError::invalid(name.as_str(), format!("the header {name} {problem}"))
    };
    // A proxy may have joined two lines to one.
    if values.next().is_some() || value.as_bytes().contains(&b',') {
        return Err(wrong("is given more than once"));
    }
    match value.to_str().ok().and_then(whole_ms) {
        Some(time) => Ok(Some(time)),
        None => {
            let most = TIME_MAX.as_millis();
            Err(wrong(&format!("must be a whole number of milliseconds from 1 to {most}")))
        }
    }
}

/// A time in digits, without a sign.
fn whole_ms(text: &str) -> Option<Duration> {
    let digits = text.trim();
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let ms = digits.parse().ok().filter(|&ms| is_plain && ms > 0)?;
    Some(Duration::from_millis(ms)).filter(|time| *time <= TIME_MAX)
}

/// Headers that begin as ours do and that nobody reads: misspelt ones.
pub(crate) fn unread(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let names = headers.keys().filter(|name| !READ.contains(name));
    names.map(HeaderName::as_str).filter(|name| name.starts_with(PREFIX))
}

/// Says where a request went.
pub(crate) fn add_route(headers: &mut HeaderMap, stream: &TextStream) {
    let route = stream.route();
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    add(DECODE_WORKER, &route.decode.to_string());
    if let Some(prefill) = &route.prefill {
        add(PREFILL_WORKER, &prefill.to_string());
    }
    add(PATH, route.path());
    add(CACHED_TOKENS, &stream.usage().cached_tokens.to_string());
}

/// Whether the client asks why: it says 1, true or yes.
pub(crate) fn asks_why(headers: &HeaderMap) -> bool {
    let said = headers.get(EXPLAIN).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["1", "true", "yes"].iter().any(|yes| said.trim().eq_ignore_ascii_case(yes))
}

/// Says why, where that was asked.
pub(crate) fn add_explanation(headers: &mut HeaderMap, call: &Call) {
    let text = call.explanation().and_then(Explanation::text);
    if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(PLACEMENT, value);
    }
}

/// Takes out which workers served a request: strangers need not know their names.
pub(crate) fn hide_workers(headers: &mut HeaderMap) {
    headers.remove(DECODE_WORKER);
    headers.remove(PREFILL_WORKER);
}

/// Says how a key stands, in OpenAI's headers.
pub(crate) fn add_standing(headers: &mut HeaderMap, allowance: &Allowance) {
    for (what, standing) in [("requests", allowance.requests()), ("tokens", allowance.tokens())] {
        let Some(Standing { limit, remaining, reset }) = standing else { continue };
        let reset = format!("{:.3}s", reset.as_secs_f64());
        for (kind, value) in
            [("limit", limit.to_string()), ("remaining", remaining.to_string()), ("reset", reset)]
        {
            let name = HeaderName::try_from(format!("x-ratelimit-{kind}-{what}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&'static str]) -> Result<Option<Duration>, String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ITL_TARGET_MS, HeaderValue::from_static(line));
        }
        patience(&headers, &ITL_TARGET_MS).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_whole_milliseconds_and_given_once() {
        assert_eq!(read(&[]), Ok(None));
        for (text, ms) in [("1", 1), (" 20 ", 20), ("31536000000", 31_536_000_000)] {
            assert_eq!(read(&[text]), Ok(Some(Duration::from_millis(ms))), "{text}");
        }
        let wrong = "the header x-baton-itl-target-ms must be a whole number of milliseconds from 1 to 31536000000";
        let none =
            ["", "0", "-5", "+5", "1.5", "1e3", "5 6", "31536000001", "18446744073709551616"];
        for text in none {
            assert_eq!(read(&[text]), Err(wrong.to_owned()), "{text:?}");
        }
        let twice = "the header x-baton-itl-target-ms is given more than once";
        for lines in [&["5", "6"][..], &["5", "5"], &["5, 6"]] {
            assert_eq!(read(lines), Err(twice.to_owned()), "{lines:?}");
        }
    }

    #[test]
    fn headers_that_are_read_are_not_unread() {
        let mut headers = HeaderMap::new();
        for name in READ.iter().map(HeaderName::as_str).chain(["x-baton-itl-traget-ms", "accept"]) {
            headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
        }
        assert_eq!(unread(&headers).collect::<Vec<_>>(), ["x-baton-itl-traget-ms"]);
    }
}
