//! What can go wrong between a client and a server.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::response::Parts;
use http::{StatusCode, Uri};
use hyper_util::client::legacy;
use serde_json::Value;

/// A server's message is shown up to here.
const MESSAGE_CHARS_MAX: usize = 500;

/// Why a request has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServerError {
    /// Nobody is there.
    #[error("no server answers at {url}: {cause}")]
    Unreachable {
        /// Where.
        url: String,
        /// The system's word.
        cause: String,
    },
    /// Somebody is there whom we don't trust.
    #[error("the certificate of {url} is not trusted: {cause}")]
    Untrusted {
        /// Where.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// It did not answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// What came over it is no answer.
    #[error("what answers there does not speak as OpenAI's servers do: {0}")]
    Misunderstood(String),
    /// It answered, and refused.
    #[error("{0}")]
    Refused(Refusal),
    /// It lists no model.
    #[error("the server lists no model")]
    NoModel,
}

/// A server's refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({status})")]
pub struct Refusal {
    /// The status; 0 where an answer that had begun broke off.
    pub status: u16,
    /// OpenAI's name for it.
    pub code: Option<String>,
    /// The server's words.
    pub message: String,
    /// When to come back.
    pub retry_after: Option<Duration>,
}

// === impl ServerError ===

impl ServerError {
    /// Why a request could not be sent to `url`.
    pub(super) fn sending(url: &str, error: &legacy::Error) -> Self {
        let (url, cause) = (url.to_owned(), root(error));
        match tls(error) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                Self::Untrusted { url, cause: why.to_string() }
            }
            Some(other) => Self::Unreachable { url, cause: format!("{other}; is it http?") },
            None if error.is_connect() => Self::Unreachable { url: with_port(url), cause },
            None if is_no_http(error) => Self::Misunderstood(format!("{cause}; is it https?")),
            None => Self::Broken(cause),
        }
    }

    /// Why the rest of an answer could not be read.
    pub(super) fn breaking(error: &hyper::Error) -> Self {
        Self::Broken(root(error))
    }

    /// In few words, the same ones for the same kind of failure, so that they can be counted.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Unreachable { cause, .. } => format!("cannot connect: {cause}"),
            Self::Untrusted { cause, .. } => format!("not trusted: {cause}"),
            Self::TimedOut => "timed out".to_owned(),
            Self::Broken(cause) => format!("connection broke: {cause}"),
            Self::Misunderstood(cause) => format!("no answer: {cause}"),
            Self::Refused(refusal) => refusal.kind(),
            Self::NoModel => "no model".to_owned(),
        }
    }
}

/// An address with the port that was meant by naming none.
fn with_port(url: String) -> String {
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.port().is_none());
    match uri.as_ref().and_then(Uri::scheme_str) {
        Some("https") => format!("{url} (port 443)"),
        Some(_) => format!("{url} (port 80)"),
        None => url,
    }
}

/// The last cause, which is the system's own word.
fn root(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// What TLS has to say about it.
fn tls(error: &(dyn StdError + 'static)) -> Option<rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found.clone());
    }
    // What an `io::Error` holds is not its source.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => tls(inner),
        None => error.source().and_then(tls),
    }
}

/// Whether what answers speaks something else.
fn is_no_http(error: &legacy::Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
    cause.is_some_and(hyper::Error::is_parse)
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn new(head: &Parts, body: &Value) -> Self {
        let seconds = |name: &str, unit: f64| {
            let value = head.headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok()?;
            Duration::try_from_secs_f64(value * unit).ok()
        };
        let retry_after = seconds("retry-after-ms", 1e-3).or(seconds(RETRY_AFTER.as_str(), 1.0));
        Self { status: head.status.as_u16(), retry_after, ..Self::of(&body["error"], head.status) }
    }

    /// The refusal in an event of an answer that had begun.
    #[must_use]
    pub fn of_event(event: &Value) -> Option<Self> {
        let error = event.get("error").filter(|error| !error.is_null())?;
        Some(Self::of(error, StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// Whether it is for want of room: the same request may be answered another time.
    #[must_use]
    pub fn is_of_load(&self) -> bool {
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
            .iter()
            .any(|status| status.as_u16() == self.status)
    }

    fn of(error: &Value, status: StatusCode) -> Self {
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        let message = text("message").or_else(|| error.as_str().map(str::to_owned));
        let unsaid = || status.canonical_reason().unwrap_or("the server refused").to_owned();
        let message = message.unwrap_or_else(unsaid).chars().take(MESSAGE_CHARS_MAX).collect();
        Self { code: text("code").or_else(|| text("type")), message, ..Self::default() }
    }

    fn kind(&self) -> String {
        let code = self.code.as_deref();
        match (self.status, code) {
            (0, code) => format!("error event: {}", code.unwrap_or("unknown")),
            (status, Some(code)) => format!("{status} {code}"),
            (status, None) => status.to_string(),
        }
    }
}
