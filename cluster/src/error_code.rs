//! What an error means to whoever called: mapped once to gRPC, to HTTP and to "does a retry help".

use std::error::Error;

use http::StatusCode;
use tonic::{Code, Status, TimeoutExpired};

/// The kinds of failure that a caller can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request itself is wrong; it will fail again.
    InvalidRequest,
    /// No such model, route or hand-off.
    NotFound,
    /// Full at the moment; come back later.
    Busy,
    /// Nobody is there to do it right now.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// The caller went away.
    Cancelled,
    /// The call was meant for an earlier life of the node.
    StaleIncarnation,
    /// Two nodes don't fit each other.
    Incompatible,
    /// Data arrived damaged and could not be fetched again.
    Corrupt,
    /// Our own fault.
    Internal,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// The gRPC code.
    #[must_use]
    pub fn grpc(self) -> Code {
        match self {
            Self::InvalidRequest => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Busy => Code::ResourceExhausted,
            Self::Unavailable => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::StaleIncarnation | Self::Incompatible => Code::FailedPrecondition,
            Self::Corrupt => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn http(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::StaleIncarnation | Self::Incompatible => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
            Self::Corrupt | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same work may succeed on another worker.
    #[must_use]
    pub fn retryable(self) -> bool {
        !matches!(self, Self::InvalidRequest | Self::NotFound | Self::Timeout | Self::Cancelled)
    }

    /// A gRPC status with this code.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        Status::new(self.grpc(), message)
    }
}

impl From<Code> for ErrorCode {
    fn from(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidRequest,
            Code::NotFound => Self::NotFound,
            Code::ResourceExhausted => Self::Busy,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Cancelled => Self::Cancelled,
            Code::FailedPrecondition => Self::StaleIncarnation,
            Code::DataLoss => Self::Corrupt,
            Code::Unavailable | Code::Aborted => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

/// What a call's failure means to the caller who is still there to see it.
///
/// More than the code tells: a call that falls into a closing connection fails as `CANCELLED`, one
/// whose connection breaks as `UNKNOWN`, and neither is what the caller or the peer meant.
impl From<&Status> for ErrorCode {
    fn from(status: &Status) -> Self {
        let causes = || std::iter::successors(status.source(), |&cause| cause.source());
        if causes().any(<dyn Error>::is::<TimeoutExpired>) {
            return Self::Timeout;
        }
        // Only a failure on this side has a cause: what a peer says arrives as a code and a text. And
        // if the call was cancelled, it was not by this caller.
        if causes().next().is_some() || status.code() == Code::Cancelled {
            return Self::Unavailable;
        }
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_peers_word(Status::resource_exhausted("full"), ErrorCode::Busy)]
    #[case::cancelled_but_not_by_us(Status::cancelled("draining"), ErrorCode::Unavailable)]
    #[case::broken(Status::from_error(Box::new(io::Error::other("reset"))), ErrorCode::Unavailable)]
    #[case::late(Status::from_error(Box::new(TimeoutExpired(()))), ErrorCode::Timeout)]
    fn a_failed_call_means(#[case] status: Status, #[case] want: ErrorCode) {
        assert_eq!(ErrorCode::from(&status), want);
    }
}
