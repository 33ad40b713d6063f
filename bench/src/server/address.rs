//! A server's address, in whichever form people have it.

use anyhow::{Context as _, Result, ensure};
use http::Uri;

/// What may follow the part of an address that requests begin with.
const ENDPOINTS: [&str; 4] = ["/chat/completions", "/completions", "/models", "/v1"];

/// The address without `/v1` and without a slash at the end: `localhost:8000`, `http://localhost:8000/`
/// and `http://localhost:8000/v1/` are the same server.
pub(super) fn base(url: &str) -> Result<String> {
    let url = url.trim();
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let want = "want http://HOST:PORT or https://HOST:PORT, with or without /v1";
    let uri: Uri = whole.parse().ok().with_context(|| format!("{url:?} is no address: {want}"))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    ensure!(["http", "https"].contains(&scheme), "{url:?} is no address of a server: {want}");
    let authority = uri.authority().with_context(|| format!("{url:?} names no host: {want}"))?;
    let mut path = uri.path().trim_end_matches('/');
    for end in ENDPOINTS {
        path = path.strip_suffix(end).unwrap_or(path).trim_end_matches('/');
    }
    Ok(format!("{scheme}://{authority}{path}"))
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
    #[case::another_scheme("ftp://h:1", None)]
    #[case::nothing("", None)]
    #[case::no_host("http://", None)]
    fn an_address_has_many_forms(#[case] url: &str, #[case] expected: Option<&str>) {
        assert_eq!(base(url).ok().as_deref(), expected, "{:?}", base(url));
    }
}
