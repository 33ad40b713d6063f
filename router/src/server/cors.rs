//! Which web pages may call, and what their browsers are told.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderValue, Uri};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, AllowPrivateNetwork, CorsLayer};

use crate::http::headers;

/// How long a browser may go by an answer: as long as the most patient one does.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// Lets pages of this machine call, or with `any` those of every origin, and read what the gateway
/// says in headers. What a browser asks for is named in the answer: `*` would leave out `Authorization`.
pub(super) fn layer(any: bool) -> CorsLayer {
    let (origin, private_network) = if any {
        (AllowOrigin::any(), AllowPrivateNetwork::yes())
    } else {
        let this_machine = AllowOrigin::predicate(|origin, _| is_loopback(origin));
        (this_machine, AllowPrivateNetwork::default())
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .allow_private_network(private_network)
        .expose_headers(headers::EXPOSED.to_vec())
        .max_age(MAX_AGE)
}

/// Whether a page was loaded from this machine, whatever its port.
fn is_loopback(origin: &HeaderValue) -> bool {
    let Ok(origin) = Uri::try_from(origin.as_bytes()) else { return false };
    if !matches!(origin.scheme_str(), Some("http" | "https")) {
        return false;
    }
    let host = origin.host().unwrap_or_default().to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://localhost", true)]
    #[case("https://localhost:3000", true)]
    #[case("http://app.localhost:5173", true)]
    #[case("http://127.0.0.1:8080", true)]
    #[case("http://127.8.0.1", true)]
    #[case("http://[::1]:3000", true)]
    #[case("http://LOCALHOST", true)]
    #[case("http://localhost.example", false)]
    #[case("http://127.0.0.1.example", false)]
    #[case("http://notlocalhost", false)]
    #[case("http://192.168.0.1", false)]
    #[case("http://example.org", false)]
    #[case("ftp://localhost", false)]
    #[case("null", false)]
    #[case("", false)]
    fn pages_of_this_machine_are_told_from_others(#[case] origin: &str, #[case] expected: bool) {
        assert_eq!(is_loopback(&HeaderValue::try_from(origin).unwrap()), expected);
    }
}
