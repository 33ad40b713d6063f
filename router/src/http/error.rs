//! Errors over HTTP, before an API has put them into its words.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use cluster::ErrorCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};

use super::headers;
use crate::RequestError;
use crate::callers::access::Reason;
use crate::error::{bounded, echo};

/// What went wrong. As a response it has no body yet: the error goes along as an extension, and the server's outermost
/// layer writes it as the API says whose path it is.
#[derive(Clone, Debug)]
pub(crate) struct HttpError {
    pub(crate) status: StatusCode,
    pub(crate) code: ErrorCode,
    /// For the client's eyes.
    pub(crate) message: String,
    /// The kind of mistake, in OpenAI's words.
    pub(crate) kind: &'static str,
    /// The mistake itself, where OpenAI has a word for it.
    pub(crate) name: Option<&'static str>,
    /// The field at fault.
    pub(crate) param: Option<String>,
    retry_after: Option<Duration>,
    /// Whether the message may hold words of the client.
    quotes: bool,
}

// === impl HttpError ===

impl HttpError {
    /// A request that is wrong as a whole.
    pub(crate) fn bad(
        status: StatusCode,
        name: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code: ErrorCode::InvalidRequest,
            message: bounded(&message.into()).into_owned(),
            kind: "invalid_request_error",
            name,
            param: None,
            retry_after: None,
            quotes: true,
        }
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
    pub(crate) fn reason(&self) -> Reason {
        let code = self.name.unwrap_or(self.kind);
        Reason { code, message: self.message.clone(), quotes: self.quotes }
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
        let (retry_after, quotes) = (error.retry_after(), error.quotes());
        Self { status, code, message, kind, name, param, retry_after, quotes }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let busy =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let mut response = (status, [(CONTENT_TYPE, "application/json")]).into_response();
        response.extensions_mut().insert(self);
        let headers = response.headers_mut();
        if busy {
            // Whole seconds, and never 0: that would ask for a busy loop.
            let ms = retry_after.map_or(1000, |after| after.as_millis().max(1));
            let ms = u64::try_from(ms).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER, ms.div_ceil(1000).into());
            headers.insert(headers::RETRY_AFTER_MS, ms.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
