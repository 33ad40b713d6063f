//! Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use cluster::ErrorCode;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;

use super::headers;
use crate::RequestError;
use crate::callers::access::Reason;
use crate::error::{bounded, echo};

/// An answer that says what went wrong.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HttpError {
    #[serde(skip)]
    pub(crate) status: StatusCode,
    #[serde(skip)]
    pub(crate) code: ErrorCode,
    #[serde(skip)]
    retry_after: Option<Duration>,
    /// Whether the message may hold words of the client.
    #[serde(skip)]
    quotes: bool,
    error: Body,
}

#[derive(Clone, Debug, Serialize)]
struct Body {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

// === impl HttpError ===

impl HttpError {
    /// A request that is wrong as a whole.
    pub(crate) fn bad(
        status: StatusCode,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        let kind = "invalid_request_error";
        let message = bounded(&message.into()).into_owned();
        let error = Body { message, kind, param: None, code };
        Self { status, code: ErrorCode::InvalidRequest, retry_after: None, quotes: true, error }
    }

    pub(crate) fn unknown_route(method: &Method, path: &str) -> Self {
        let message = format!("unknown request URL: {method} {path}; see /v1/models to begin with");
        Self::bad(StatusCode::NOT_FOUND, Some("unknown_url"), message)
    }

    pub(crate) fn wrong_method(method: &Method, path: &str) -> Self {
        let message = format!("{path} can't be called with {method}; the Allow header says how");
        Self::bad(StatusCode::METHOD_NOT_ALLOWED, Some("method_not_allowed"), message)
    }

    pub(crate) fn panicked() -> Self {
        RequestError::Internal("the request could not be handled".into()).into()
    }

    /// What the access log may know of it.
    fn reason(&self) -> Reason {
        let Body { message, kind, code, .. } = &self.error;
        Reason { code: code.unwrap_or(kind), message: message.clone(), quotes: self.quotes }
    }
}

impl From<RequestError> for HttpError {
    fn from(error: RequestError) -> Self {
        let (message, code) = (bounded(&error.to_string()).into_owned(), error.code());
        let (status, kind, name) = match (&error, code) {
            (RequestError::Unauthorized(_), _) => {
                (StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"))
            }
            (RequestError::UnknownModel { .. }, _) => {
                (StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"))
            }
            (RequestError::ContextLength { .. }, _) => {
                (code.http(), "invalid_request_error", Some("context_length_exceeded"))
            }
            (RequestError::Invalid { code: name, .. }, _) => {
                (code.http(), "invalid_request_error", *name)
            }
            (_, ErrorCode::InvalidRequest | ErrorCode::NotFound) => {
                (code.http(), "invalid_request_error", None)
            }
            (_, ErrorCode::Busy) => (code.http(), "rate_limit_error", Some("rate_limit_exceeded")),
            (_, ErrorCode::Timeout) => (code.http(), "timeout_error", Some("timeout")),
            (_, ErrorCode::Unavailable) => (code.http(), "server_error", Some("unavailable")),
            (_, ErrorCode::Corrupt) => (code.http(), "server_error", Some("bad_gateway")),
            _ => (code.http(), "server_error", Some("internal_error")),
        };
        let param = error.param().map(|param| echo(param).into_owned());
        let error_body = Body { message, kind, param, code: name };
        let (retry_after, quotes) = (error.retry_after(), error.quotes());
        Self { status, code, retry_after, quotes, error: error_body }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, retry_after, reason) = (self.status, self.retry_after, self.reason());
        let busy =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let mut response = (status, Json(self)).into_response();
        response.extensions_mut().insert(reason);
        if busy {
            // Whole seconds, and never 0: that would ask for a busy loop.
            let ms = retry_after.map_or(1000, |after| after.as_millis().max(1));
            let ms = u64::try_from(ms).unwrap_or(u64::MAX);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, ms.div_ceil(1000).into());
            headers.insert(headers::RETRY_AFTER_MS, ms.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
