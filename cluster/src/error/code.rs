//! What an error means to whoever called: mapped once to gRPC, to HTTP and to "does a retry help".

use std::error::Error;

use http::StatusCode;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status, TimeoutExpired};

/// Metadata of a status that says which [`ErrorCode`] it is of: several share a gRPC code, and what has none
/// was said by the machinery in between.
const MARK: &str = "baton-error";

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
    /// What arrived is not what was sent, or no answer to what was asked.
    Corrupt,
    /// The numbers that the model came to are none: damaged weights or memory of this worker, or an overflow
    /// that any other runs into as well.
    Miscomputed,
    /// Our own fault.
    Internal,
}

// === impl ErrorCode ===

impl ErrorCode {
    /// Each of them.
    pub const ALL: [Self; 11] = [
        Self::InvalidRequest,
        Self::NotFound,
        Self::Busy,
        Self::Unavailable,
        Self::Timeout,
        Self::Cancelled,
        Self::StaleIncarnation,
        Self::Incompatible,
        Self::Corrupt,
        Self::Miscomputed,
        Self::Internal,
    ];

    /// The name by which nodes tell each other.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::NotFound => "not-found",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::StaleIncarnation => "stale-incarnation",
            Self::Incompatible => "incompatible",
            Self::Corrupt => "corrupt",
            Self::Miscomputed => "miscomputed",
            Self::Internal => "internal",
        }
    }

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
            Self::Miscomputed | Self::Internal => Code::Internal,
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
            Self::Corrupt => StatusCode::BAD_GATEWAY,
            Self::Miscomputed | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether the same work may succeed on another worker.
    #[must_use]
    pub fn retryable(self) -> bool {
        !matches!(self, Self::InvalidRequest | Self::NotFound | Self::Timeout | Self::Cancelled)
    }

    /// Whether a second worker with the same failure means that a third would have it, too.
    #[must_use]
    pub fn retryable_once(self) -> bool {
        self == Self::Miscomputed
    }

    /// A gRPC status with this code, and the word that it is this one.
    #[must_use]
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(MARK, MetadataValue::from_static(self.name()));
        Status::with_metadata(self.grpc(), message, metadata)
    }

    /// Whether these are of a status that a node of ours has said.
    pub(crate) fn is_marked(headers: &http::HeaderMap) -> bool {
        headers.contains_key(MARK)
    }

    /// What a node said, if one did. A word that doesn't go with its code was damaged on its way.
    fn marked(status: &Status) -> Option<Self> {
        let mark = status.metadata().get(MARK)?;
        let named = Self::ALL.into_iter().find(|code| mark == code.name());
        Some(named.filter(|code| code.grpc() == status.code()).unwrap_or(Self::Corrupt))
    }
}

/// What a code means that no node of ours has said, but a library or a proxy.
///
/// None of them knows what is wrong with a request: whatever says so is no reason to refuse it.
impl From<Code> for ErrorCode {
    fn from(code: Code) -> Self {
        match code {
            Code::ResourceExhausted => Self::Busy,
            Code::DeadlineExceeded => Self::Timeout,
            Code::Unavailable | Code::Aborted | Code::Cancelled => Self::Unavailable,
            // A message over the limit; a body that broke off.
            Code::OutOfRange | Code::DataLoss => Self::Corrupt,
            // A service that is not there, or not for us.
            Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
                Self::Incompatible
            }
            Code::Ok
            | Code::Unknown
            | Code::Internal
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition => Self::Internal,
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
        // Only a failure on this side has a cause: what a peer says arrives as a code and a text.
        if causes().next().is_some() {
            return Self::Unavailable;
        }
        match Self::marked(status) {
            // If the call was cancelled, it was not by this caller.
            Some(Self::Cancelled) => Self::Unavailable,
            Some(code) => code,
            None => Self::from(status.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_proxys_word(Status::resource_exhausted("full"), ErrorCode::Busy)]
    #[case::cancelled_but_not_by_us(Status::cancelled("draining"), ErrorCode::Unavailable)]
    #[case::cancelled_by_a_peer(ErrorCode::Cancelled.status("gone"), ErrorCode::Unavailable)]
    #[case::a_reply_too_large(
        Status::out_of_range("decoded message length too large"),
        ErrorCode::Corrupt
    )]
    #[case::not_a_peers_word(Status::invalid_argument("odd"), ErrorCode::Internal)]
    #[case::another_life_said_by_nobody(Status::failed_precondition("odd"), ErrorCode::Internal)]
    #[case::broken(Status::from_error(Box::new(io::Error::other("reset"))), ErrorCode::Unavailable)]
    #[case::late(Status::from_error(Box::new(TimeoutExpired(()))), ErrorCode::Timeout)]
    fn a_failed_call_means(#[case] status: Status, #[case] want: ErrorCode) {
        assert_eq!(ErrorCode::from(&status), want);
    }

    /// As it arrives: through a header map.
    fn over_the_wire(status: &Status) -> Status {
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        Status::from_header_map(&headers).unwrap()
    }

    #[test]
    fn every_code_survives_the_wire() {
        for code in ErrorCode::ALL {
            let arrived = over_the_wire(&code.status("why"));
            let want = if code == ErrorCode::Cancelled { ErrorCode::Unavailable } else { code };
            assert_eq!((ErrorCode::from(&arrived), arrived.message()), (want, "why"));
        }
    }

    /// All that gRPC has, as a library or a proxy says them: none is the client's fault, none ends a request
    /// that another worker may serve but a deadline.
    #[test]
    fn what_no_node_said_is_no_reason_to_refuse() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            assert_eq!(code as i32, number);
            let arrived = ErrorCode::from(&over_the_wire(&Status::new(code, "")));
            let ends = code == Code::DeadlineExceeded;
            assert_eq!(!arrived.retryable(), ends, "{code:?} is {arrived:?}");
            assert!(arrived.http().is_server_error() || arrived == ErrorCode::Busy, "{code:?}");
        }
    }

    #[test]
    fn a_status_with_a_flipped_bit_is_no_reason_to_refuse() {
        for code in ErrorCode::ALL.into_iter().filter(|code| code.retryable()) {
            for flipped in flips(&code.status("")) {
                let arrived = ErrorCode::from(&flipped);
                // A number that gRPC doesn't have is one that nobody said.
                assert!(
                    arrived.retryable() || arrived == ErrorCode::Timeout,
                    "{code:?}: {flipped:?}"
                );
            }
        }
    }

    /// `status` with each bit of its code and of its mark flipped.
    fn flips(status: &Status) -> Vec<Status> {
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let mut flipped = Vec::new();
        for name in ["grpc-status", MARK] {
            let value = headers[name].as_bytes().to_vec();
            for bit in 0..8 * value.len() {
                let mut value = value.clone();
                value[bit / 8] ^= 1 << (bit % 8);
                let Ok(value) = http::HeaderValue::from_bytes(&value) else { continue };
                let mut headers = headers.clone();
                headers.insert(name, value);
                flipped.extend(Status::from_header_map(&headers));
            }
        }
        flipped
    }
}
