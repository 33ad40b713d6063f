//! gRPC between nodes: servers, channels, deadlines.

use std::time::{Duration, Instant};

use tonic::{Request, metadata::MetadataMap};

use crate::clock;
use crate::telemetry::propagate;

mod accept;
pub mod channels;
mod clients;
mod dial;
pub mod net;
mod nonsense;
pub mod server;

pub use channels::{Channels, Purpose};
pub use clients::serve_clients;
pub use server::{Listener, Server};

/// The largest message either side accepts. KV pages are sent in far smaller pieces; this leaves
/// room for a prompt of a million tokens. Set on each generated client and server:
/// `.max_decoding_message_size(MESSAGE_BYTES_MAX)`.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// The point in time `deadline_ms` from now, as the wire says it.
#[must_use]
pub fn deadline_from(deadline_ms: u64) -> Instant {
    // A year is as good as for ever, and far from what `Instant` can't add.
    clock::now() + Duration::from_millis(deadline_ms.min(365 * 24 * 3600 * 1000))
}

/// Milliseconds left until `deadline`, as the wire says it; 0 if it has passed.
#[must_use]
pub fn remaining_ms(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(clock::now());
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds since `arrived`, as the wire says it.
#[must_use]
pub fn waited_us(arrived: Instant) -> u64 {
    let waited = clock::now().saturating_duration_since(arrived);
    u64::try_from(waited.as_micros()).unwrap_or(u64::MAX)
}

/// A request that must be answered by `deadline`, on both sides (`grpc-timeout`), and carries the
/// current span's trace context.
///
/// An answer that is a stream only has to begin by then: its messages are the caller's to bound.
pub fn request<T>(message: T, deadline: Instant) -> Request<T> {
    let mut request = request_without_deadline(message);
    request.set_timeout(deadline.saturating_duration_since(clock::now()));
    request
}

/// A request that goes on until either side ends it, e.g. a report stream. Carries the current
/// span's trace context.
pub fn request_without_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    propagate::inject_metadata(request.metadata_mut());
    request
}

/// The time the caller gives for an answer (`grpc-timeout`), if it says.
#[must_use]
pub fn timeout_of(metadata: &MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("5S", Some(Duration::from_secs(5)))]
    #[case("250m", Some(Duration::from_millis(250)))]
    #[case("99999999H", Some(Duration::from_secs(99_999_999 * 3600)))]
    #[case("123456789S", None)]
    #[case("5", None)]
    #[case("", None)]
    #[case("x5S", None)]
    fn a_grpc_timeout_is_read(#[case] value: &str, #[case] want: Option<Duration>) {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        assert_eq!(timeout_of(&metadata), want);
    }

    #[test]
    fn a_deadline_survives_the_wire() {
        let deadline = Instant::now() + Duration::from_secs(3);
        let request = request((), deadline);
        let left = timeout_of(request.metadata()).unwrap();
        assert!(left > Duration::from_secs(2) && left <= Duration::from_secs(3), "{left:?}");
        let again = deadline_from(remaining_ms(deadline));
        assert!(again <= deadline && deadline - again < Duration::from_secs(1));
        assert_eq!(remaining_ms(Instant::now() - Duration::from_secs(1)), 0);
        assert!(deadline_from(u64::MAX) > Instant::now());
    }
}
