//! A server's address, in whichever form people have it.

use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, ensure};
use http::Uri;
use http::uri::Authority;

/// Where Baton's routers listen, unless told otherwise.
const USUAL_PORT: u16 = 8000;

/// What may follow the part of an address that requests begin with.
const ENDPOINTS: [&str; 4] = ["/chat/completions", "/completions", "/models", "/v1"];

/// The address without `/v1` and without a slash at the end: `8000`, `:8000`, `localhost`, `localhost:8000`,
/// `http://localhost:8000/` and `http://localhost:8000/v1/` are the same server.
pub(super) fn base(url: &str) -> Result<String> {
    let url = url.trim();
    let want = "want HOST:PORT, http://HOST:PORT or https://HOST:PORT, with or without /v1";
    let uri = whole(url).parse::<Uri>().ok();
    let uri = uri.with_context(|| format!("{url:?} is no address: {want}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    ensure!(["http", "https"].contains(&scheme), "{url:?} is no address of a server: {want}");
    let authority = uri.authority().with_context(|| format!("{url:?} names no host: {want}"))?;
    check(authority)?;
    let mut path = uri.path().trim_end_matches('/');
    for end in ENDPOINTS {
        path = path.strip_suffix(end).unwrap_or(path).trim_end_matches('/');
    }
    Ok(format!("{scheme}://{authority}{path}"))
}

/// An address of which people leave out what goes without saying: scheme, host or port.
fn whole(url: &str) -> String {
    if url.contains("://") {
        return url.to_owned();
    }
    if url.parse::<Ipv6Addr>().is_ok() {
        return format!("http://[{url}]:{USUAL_PORT}");
    }
    let (place, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    match place.strip_prefix(':').unwrap_or(place) {
        port if is_port(port) => format!("http://127.0.0.1:{port}{path}"),
        host if host.is_empty() || host.contains(':') && !host.ends_with(']') => {
            format!("http://{url}")
        }
        host => format!("http://{host}:{USUAL_PORT}{path}"),
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Refuses what can't be called, or would be shown to whoever reads along.
fn check(authority: &Authority) -> Result<()> {
    let text = authority.as_str();
    ensure!(!text.contains('@'), "keys don't go into the address: give --api-key or BATON_API_KEY");
    ensure!(!authority.host().is_empty(), "{text:?} names no host");
    let port = text.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
    let is_one = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    ensure!(port.is_none_or(is_one), "{text:?} has no port that can be: want 1 to 65535");
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("http://127.0.0.1:8000", Some("http://127.0.0.1:8000"))]
    #[case::a_slash("http://127.0.0.1:8000/", Some("http://127.0.0.1:8000"))]
    #[case::as_openai_clients_want_it("http://h:1/v1", Some("http://h:1"))]
    #[case::both("http://h:1/v1/", Some("http://h:1"))]
    #[case::more_slashes("http://h:1//v1//", Some("http://h:1"))]
    #[case::an_endpoint("http://h:1/v1/chat/completions", Some("http://h:1"))]
    #[case::encrypted("https://h/v1", Some("https://h"))]
    #[case::no_scheme("localhost:8000", Some("http://localhost:8000"))]
    #[case::no_scheme_and_a_path("localhost:8000/v1/", Some("http://localhost:8000"))]
    #[case::behind_a_prefix("https://h/llm/v1", Some("https://h/llm"))]
    #[case::v6("http://[::1]:8000/v1", Some("http://[::1]:8000"))]
    #[case::spaces(" http://h:1 ", Some("http://h:1"))]
    #[case::a_port("8000", Some("http://127.0.0.1:8000"))]
    #[case::a_port_with_its_colon(":9/v1", Some("http://127.0.0.1:9"))]
    #[case::a_host("localhost", Some("http://localhost:8000"))]
    #[case::a_host_and_a_path("gateway/v1", Some("http://gateway:8000"))]
    #[case::a_host_of_a_scheme("http://gateway", Some("http://gateway"))]
    #[case::bare_v6("::1", Some("http://[::1]:8000"))]
    #[case::v6_in_brackets("[::1]", Some("http://[::1]:8000"))]
    #[case::an_empty_port("http://h:", None)]
    #[case::no_port("http://h:99999", None)]
    #[case::no_port_either("99999", None)]
    #[case::only_a_colon(":", None)]
    #[case::a_password("http://me:secret@h:1", None)]
    #[case::another_scheme("ftp://h:1", None)]
    #[case::nothing("", None)]
    #[case::no_host("http://", None)]
    fn an_address_has_many_forms(#[case] url: &str, #[case] expected: Option<&str>) {
        assert_eq!(base(url).ok().as_deref(), expected, "{:?}", base(url));
    }
}
