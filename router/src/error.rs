//! What can go wrong with a request, and with the router itself.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cluster::ErrorCode;
use model_folder::FolderError;

use crate::dispatch::DispatchError;
use crate::text::template::TemplateLoadError;
use crate::text::{PoolFull, TemplateError, TokenizerError};

/// What is given back of a client's own words; it knows the rest.
const ECHO_CHARS_MAX: usize = 128;
/// The longest message, whatever is in it: a gRPC status travels in a header, and of a larger one clients see
/// only that it was too large.
const MESSAGE_CHARS_MAX: usize = 1000;

/// Why a request can't be served. The message is for the client's eyes and says what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// A field of the request is wrong.
    #[error("{message}")]
    Invalid {
        /// The field at fault, as a path (`messages[0].content`); `None`: the whole request.
        param: Option<String>,
        /// What is wrong with it.
        message: String,
        /// OpenAI's name for this kind of mistake, where there is one.
        code: Option<&'static str>,
    },
    /// Prompt and answer don't fit the model's context.
    #[error("{message}")]
    ContextLength {
        /// The field at fault.
        param: &'static str,
        /// The numbers.
        message: String,
    },
    /// No model of that name is served.
    #[error("the model `{name}` does not exist; served here: {served} (GET /v1/models)")]
    UnknownModel {
        /// What was asked for, cut.
        name: String,
        /// Some that are served.
        served: String,
    },
    /// No valid API key came with the request.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The router itself has too much to do.
    #[error("{message}")]
    Busy {
        /// What is full.
        message: String,
        /// When to come back.
        retry_after: Duration,
    },
    /// The deadline passed.
    #[error("the request was not finished within {timeout_ms} ms")]
    Timeout {
        /// The patience it came with.
        timeout_ms: u64,
    },
    /// The dispatcher gave up.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// Our own fault; the details are in the log.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a model folder can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelLoadError {
    /// No tokenizer, or a broken one.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A broken chat template.
    #[error(transparent)]
    Template(#[from] TemplateLoadError),
    /// A file is missing or not what it should be.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Why the router can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A model's folder isn't what it should be.
    #[error(transparent)]
    Model(#[from] ModelLoadError),
    /// A configured value makes no sense.
    #[error("`{field}` {problem}")]
    Config {
        /// Which value.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A listener or a thread failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The operating system's word.
        source: io::Error,
    },
    /// The file of API keys can't be used.
    #[error("the API keys in {path}: {problem}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(String),
}

// === impl RequestError ===

impl RequestError {
    /// The error of one field.
    #[must_use]
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { param: Some(param.into()), message: message.into(), code: None }
    }

    /// A field that is understood but not served.
    #[must_use]
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        let code = Some("unsupported_parameter");
        Self::Invalid { param: Some(param.into()), message: message.into(), code }
    }

    /// A prompt, or a prompt and its answer, that don't fit the context: in the sentences by which
    /// client libraries (litellm, LangChain, coding agents) know that the prompt has to be shortened.
    ///
    /// - `context`: tokens of the model's context.
    /// - `problem`: goes on after `the configured limit`, and says what to change.
    #[must_use]
    pub fn context_length(param: &'static str, context: usize, problem: &str) -> Self {
        let message = format!(
            "This model's maximum context length is {context} tokens. Input tokens exceed the \
             configured limit {problem}"
        );
        Self::ContextLength { param, message }
    }

    /// The router takes no new work, or can't finish what it has.
    #[must_use]
    pub fn stopping() -> Self {
        let message = "this server is stopping; another one may answer";
        Self::Dispatch(DispatchError {
            retry_after: Some(Duration::from_secs(1)),
            ..DispatchError::new(ErrorCode::Unavailable, message)
        })
    }

    /// What it means to the caller.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid { .. } | Self::ContextLength { .. } | Self::Unauthorized(_) => {
                ErrorCode::InvalidRequest
            }
            Self::UnknownModel { .. } => ErrorCode::NotFound,
            Self::Busy { .. } => ErrorCode::Busy,
            Self::Timeout { .. } => ErrorCode::Timeout,
            Self::Dispatch(error) => error.code,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// When to come back, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => Some(*retry_after),
            Self::Dispatch(error) => error.retry_after,
            _ => None,
        }
    }

    /// The field at fault, as a path, where one is.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid { param, .. } => param.as_deref(),
            Self::ContextLength { param, .. } => Some(param),
            Self::UnknownModel { .. } => Some("model"),
            Self::Dispatch(error) => error.param,
            _ => None,
        }
    }

    /// Whether the message may hold words of the client.
    #[must_use]
    pub(crate) fn quotes(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::UnknownModel { .. })
    }

    /// The gRPC status.
    #[must_use]
    pub fn status(&self) -> tonic::Status {
        if let Self::Unauthorized(message) = self {
            return tonic::Status::unauthenticated(*message);
        }
        let mut message = bounded(&self.to_string()).into_owned();
        if let Some(param) = self.param() {
            message = format!("{}: {message}", echo(param));
        }
        cluster::retry::status(self.code(), message, self.retry_after())
    }
}

/// A client's word as it is given back to it: its beginning, and how long it was.
pub(crate) fn echo(word: &str) -> Cow<'_, str> {
    cut(word, ECHO_CHARS_MAX)
}

/// A message as it goes to a client.
pub(crate) fn bounded(message: &str) -> Cow<'_, str> {
    cut(message, MESSAGE_CHARS_MAX)
}

fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()).into(),
        None => text.into(),
    }
}

impl From<PoolFull> for RequestError {
    fn from(error: PoolFull) -> Self {
        match error {
            PoolFull::Full => {
                Self::Busy { message: error.to_string(), retry_after: Duration::from_secs(1) }
            }
            PoolFull::Panicked => Self::Internal(error.to_string()),
        }
    }
}

impl From<TemplateError> for RequestError {
    fn from(error: TemplateError) -> Self {
        Self::invalid("messages", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_words_are_cut() {
        assert_eq!(echo("short"), "short");
        let long = "\u{e9}".repeat(1 << 20);
        let told = echo(&long);
        assert_eq!(told.chars().filter(|c| *c == '\u{e9}').count(), ECHO_CHARS_MAX);
        assert!(told.ends_with("... (2097152 bytes)"), "{told}");
        let status = RequestError::invalid(long.clone(), long).status();
        assert!(status.message().len() < 4000, "{}", status.message().len());
    }
}
