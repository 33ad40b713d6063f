//! When to try again: as told by who refused (`google.rpc.RetryInfo` among a status's details), or after waits that
//! grow ([`backoff`]).

use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::ErrorCode;

pub mod backoff;

/// A status that says when to come back, if that is known.
#[must_use]
pub fn status(code: ErrorCode, message: impl Into<String>, after: Option<Duration>) -> Status {
    let plain = code.status(message);
    if after.is_none() {
        return plain;
    }
    let (details, metadata) = (ErrorDetails::with_retry_info(after), plain.metadata().clone());
    Status::with_error_details_and_metadata(plain.code(), plain.message(), details, metadata)
}

/// When to come back, if the status says so.
#[must_use]
pub fn after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_refusal_carries_its_time() {
        let wait = Duration::from_millis(2_345);
        let refusal = status(ErrorCode::Busy, "full", Some(wait));
        assert_eq!((refusal.code(), refusal.message()), (Code::ResourceExhausted, "full"));
        // As it arrives: through headers.
        let mut headers = http::HeaderMap::new();
        refusal.add_header(&mut headers).unwrap();
        let arrived = Status::from_header_map(&headers).unwrap();
        assert_eq!((after(&arrived), ErrorCode::from(&arrived)), (Some(wait), ErrorCode::Busy));
    }

    #[test]
    fn without_a_time_there_is_none() {
        assert_eq!(after(&status(ErrorCode::Busy, "full", None)), None);
        assert_eq!(after(&Status::unavailable("gone")), None);
    }
}
