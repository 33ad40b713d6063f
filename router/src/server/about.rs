//! What this server is, for who comes to its address without knowing, or looks for what it hasn't.

use axum::Json;
use axum::response::{Html, IntoResponse, Response};
use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;

use crate::api::{ENDPOINTS, Endpoint};
use crate::http::error::HttpError;

/// A path that is served.
#[derive(Serialize)]
struct Served {
    method: &'static str,
    path: &'static str,
    about: &'static str,
}

#[derive(Serialize)]
struct About {
    name: &'static str,
    version: &'static str,
    about: &'static str,
    endpoints: Vec<Served>,
}

const ABOUT: &str = "Baton serves large language models, with OpenAI's API: give clients this \
                     address with /v1 as their base URL";
/// What is served beside the APIs.
const PROBES: [Served; 3] = [
    Served { method: "GET", path: "/v1/models", about: "lists the models served" },
    Served { method: "GET", path: "/health", about: "whether the process answers" },
    Served { method: "GET", path: "/ready", about: "whether requests are served" },
];

/// What paths begin with that other servers have, or OpenAI, and this one hasn't.
const UNSERVED: &[&str] = &[
    "/api",
    "/classify",
    "/completion",
    "/detokenize",
    "/embeddings",
    "/generate",
    "/generate_stream",
    "/infill",
    "/invocations",
    "/messages",
    "/openai",
    "/pooling",
    "/props",
    "/rerank",
    "/responses",
    "/score",
    "/slots",
    "/tokenize",
    "/tokenizer_info",
    "/v1/assistants",
    "/v1/audio",
    "/v1/batches",
    "/v1/chat/completions",
    "/v1/complete",
    "/v1/completions",
    "/v1/containers",
    "/v1/conversations",
    "/v1/detokenize",
    "/v1/edits",
    "/v1/embeddings",
    "/v1/engines",
    "/v1/evals",
    "/v1/files",
    "/v1/fine-tunes",
    "/v1/fine_tuning",
    "/v1/images",
    "/v1/messages",
    "/v1/moderations",
    "/v1/organization",
    "/v1/realtime",
    "/v1/rerank",
    "/v1/responses",
    "/v1/score",
    "/v1/threads",
    "/v1/tokenize",
    "/v1/uploads",
    "/v1/vector_stores",
    "/v1/videos",
    "/v1beta",
    "/v2",
    "/version",
];
/// What paths end with that were put together from another base URL than the right one.
const MISPLACED: &[&str] = &["/chat/completions", "/completions", "/models"];

/// Paths in messages are cut to this.
const PATH_BYTES_MAX: usize = 128;

/// `GET /`, and of the base URL: as a page for browsers, else as JSON.
pub(super) async fn about(headers: HeaderMap) -> Response {
    let accepts = headers.get(ACCEPT).map_or("", |accept| accept.to_str().unwrap_or_default());
    if accepts.contains("text/html") {
        return Html(page()).into_response();
    }
    let version = env!("CARGO_PKG_VERSION");
    let about = About { name: "baton", version, about: ABOUT, endpoints: served().collect() };
    Json(about).into_response()
}

/// The answer at a path that isn't served: of paths that are known, what is served instead.
///
/// Those are a 400. A 404 or a 5xx would tell gateways (litellm) that this server is out of order, and
/// make them send it nothing for a while; a client that asks for what isn't there is no reason.
pub(super) fn unserved(method: &Method, path: &str) -> HttpError {
    let shown: String = path.chars().take(PATH_BYTES_MAX).collect();
    let under = |known: &&str| {
        path.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let ends_too_late =
        path.ends_with('/') && served().any(|it| it.path == path.trim_end_matches('/'));
    let hint = if ends_too_late {
        "the slash at its end is too much"
    } else if MISPLACED.iter().any(|end| path.ends_with(end)) {
        "the base URL that clients need is this server's address with /v1"
    } else if UNSERVED.iter().any(under) {
        "this server generates text"
    } else {
        return HttpError::unknown_route(method, &shown);
    };
    let apis: Vec<String> = ENDPOINTS.iter().map(|it| format!("POST {}", it.path)).collect();
    let apis = apis.join(", ");
    let message =
        format!("{method} {shown} is not served: {hint}; there are {apis} and GET /v1/models");
    HttpError::bad(StatusCode::BAD_REQUEST, Some("unsupported_endpoint"), message)
}

fn served() -> impl Iterator<Item = Served> {
    let api = |it: &Endpoint| Served { method: "POST", path: it.path, about: it.about };
    ENDPOINTS.iter().map(api).chain(PROBES)
}

fn page() -> String {
    let item = |served: Served| {
        let Served { method, path, about } = served;
        format!("<li><code>{method} {path}</code>: {about}</li>")
    };
    let items: String = served().map(item).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Baton</title>\
         <h1>Baton {}</h1><p>{ABOUT}.</p><ul>{items}</ul></html>",
        env!("CARGO_PKG_VERSION")
    )
}
