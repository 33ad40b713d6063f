//! A request's body: bounded in size and time, and a JSON object.

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use cluster::patience::Patience;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use words::ClientId;

use super::error::HttpError;
use crate::callers::in_flight;
use crate::error::echo;
use crate::text::Cancelled;
use crate::{Gateway, GatewayLimits, RequestError};

mod rest;
mod surrogates;

/// Parsed where it is read, within 1 ms; larger ones wait for a thread.
const PARSED_AT_ONCE_BYTES_MAX: usize = 64 << 10;

pub(crate) use rest::read_to_the_end;

/// A body, read: an object, and its bytes, which count as in flight.
pub(crate) type Received = (Map<String, Json>, in_flight::Bytes);

/// Why a body was not read to its end.
enum Unread {
    TooLarge,
    Refused(RequestError),
    Broken(axum::Error),
}

/// Reads the body as a JSON object.
pub(crate) async fn read_object(
    request: Request,
    gateway: &Gateway,
    client: ClientId,
) -> Result<Received, HttpError> {
    check_type(request.headers())?;
    let (limits, mut received) = (gateway.limits(), gateway.receive(client));
    let mut body = request.into_body();
    if announced(&body) > limits.body_bytes {
        return Err(too_large(limits));
    }
    let read = read_up_to(&mut body, limits.body_bytes, &mut received);
    let read = tokio::select! {
        biased;
        read = read => Some(read),
        () = Patience::lasting(limits.body_timeout) => None,
    };
    let bytes = match read {
        Some(Ok(bytes)) => bytes,
        Some(Err(Unread::TooLarge)) => return Err(too_large(limits)),
        Some(Err(Unread::Refused(error))) => return Err(error.into()),
        Some(Err(Unread::Broken(error))) => {
            let message = format!("the body could not be read: {error}");
            return Err(HttpError::bad(StatusCode::BAD_REQUEST, None, message));
        }
        None => {
            let message = format!("the body did not arrive within {:?}", limits.body_timeout);
            return Err(HttpError::bad(StatusCode::REQUEST_TIMEOUT, Some("timeout"), message));
        }
    };
    if bytes.len() <= PARSED_AT_ONCE_BYTES_MAX {
        return Ok((parse_object(bytes)?, received));
    }
    let (size, values_max) = (bytes.len(), limits.json_values);
    let parse = move |_: &Cancelled| parse_large(bytes, values_max, received);
    gateway.work(client, size, parse).await?
}

/// What a body says it has, at least.
fn announced(body: &Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

/// The whole body, counted as it comes; not more than `bytes_max` bytes.
async fn read_up_to(
    body: &mut Body,
    bytes_max: usize,
    received: &mut in_flight::Bytes,
) -> Result<Vec<u8>, Unread> {
    // What is announced need not come.
    let mut bytes = Vec::with_capacity(announced(body).min(PARSED_AT_ONCE_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(Unread::TooLarge);
        }
        received.add(data.len()).map_err(Unread::Refused)?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Parses a body whose parsed form could be many times its size.
fn parse_large(
    bytes: Vec<u8>,
    values_max: usize,
    mut received: in_flight::Bytes,
) -> Result<Received, HttpError> {
    let values = count_values(&bytes);
    if values > values_max {
        let message = format!("the body has {values} values, at most {values_max} are read");
        let code = Some("body_too_large");
        return Err(HttpError::bad(StatusCode::PAYLOAD_TOO_LARGE, code, message));
    }
    received.add(values * size_of::<Json>())?;
    Ok((parse_object(bytes)?, received))
}

/// Values in a JSON text, about: one more than there are commas, colons and opening brackets.
fn count_values(bytes: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b',' | b':' | b'[' | b'{' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// What can't be read is tried again with its halves of characters replaced: looking for them in every
/// body would cost more than reading few bodies twice.
fn parse_object(mut bytes: Vec<u8>) -> Result<Map<String, Json>, HttpError> {
    match parse(&bytes) {
        Err(_) if surrogates::replace_unpaired(&mut bytes) => parse(&bytes),
        parsed => parsed,
    }
}

fn parse(bytes: &[u8]) -> Result<Map<String, Json>, HttpError> {
    let bad = |message: String| HttpError::bad(StatusCode::BAD_REQUEST, None, message);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        bad(format!("the body is not valid UTF-8, from byte {} on", error.valid_up_to()))
    })?;
    if text.trim().is_empty() {
        return Err(bad("the body is empty; send a JSON object".into()));
    }
    match serde_json::from_str(text) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(other) => Err(bad(format!("the body is {}, not a JSON object", kind(&other)))),
        Err(error) => Err(bad(format!("the body is not valid JSON: {error}"))),
    }
}

/// Reads the fields that `T` knows out of an object; others are none of its business.
pub(crate) fn fields<'de, T: Deserialize<'de>>(object: &'de Json) -> Result<T, RequestError> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        let param = Some(path).filter(|path| path != ".");
        let problem = error.inner().to_string();
        let problem = echo(&problem);
        let message = match &param {
            Some(param) => format!("`{param}` has the wrong type or value: {problem}"),
            None => problem.into_owned(),
        };
        RequestError::Invalid { param, message, code: None }
    })
}

/// JSON's name for a value's kind, with its article.
pub(crate) fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), HttpError> {
    let unsupported = |message: String| {
        let code = Some("unsupported_media_type");
        HttpError::bad(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, message)
    };
    let encoding = headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("compressed bodies are not read; send plain JSON".into()));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let value = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    if kind != "application/json" && !kind.ends_with("+json") {
        let kind = echo(kind);
        let message = format!("Content-Type is `{kind}`; send `application/json`");
        return Err(unsupported(message));
    }
    let charset = parts.filter_map(|part| part.strip_prefix("charset=")).next();
    match charset.map(|charset| charset.trim_matches('"')) {
        None | Some("utf-8" | "utf8" | "us-ascii") => Ok(()),
        Some(other) => Err(unsupported(format!("charset is `{}`; send UTF-8", echo(other)))),
    }
}

fn too_large(limits: &GatewayLimits) -> HttpError {
    let message = format!("the body has more than the {} bytes allowed", limits.body_bytes);
    HttpError::bad(StatusCode::PAYLOAD_TOO_LARGE, Some("body_too_large"), message)
}
