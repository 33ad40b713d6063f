//! All of HTTP: the APIs' routes, and probes for operators.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use cluster::telemetry::{Metrics, propagate};
use http::{Method, Uri};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument as _, field, info_span};

use super::{about, cors, probes};
use crate::Gateway;
use crate::api::{self, openai};
use crate::callers::access::{Call, Status};
use crate::http::body;
use crate::http::error::HttpError;
use crate::http::head;
use crate::http::headers::{self, CallIds};

/// All routes, to be served on the public address.
pub fn app(gateway: Arc<Gateway>) -> Router {
    let cors = cors::layer(gateway.config.cors);
    let api = api::routes()
        .route("/v1/models", get(probes::models))
        .route("/v1/models/{*name}", get(probes::model))
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), authenticate));
    let probes = Router::new()
        .route("/", get(about::about))
        .route("/v1", get(about::about))
        .route("/v1/", get(about::about))
        .route("/health", get(probes::health))
        .route("/ready", get(probes::ready_for_strangers));
    let layers = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(Arc::clone(&gateway), name_call))
        .layer(CatchPanicLayer::custom(|_| HttpError::panicked().into_response()))
        .layer(cors);
    api.merge(probes)
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(layers)
        .with_state(gateway)
}

/// What operators get to see, to be served on an address of their own.
pub fn admin(gateway: Arc<Gateway>, metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(probes::health))
        .route("/ready", get(probes::ready))
        .route("/metrics", get(probes::metrics).layer(Extension(metrics)))
        .with_state(gateway)
}

/// Gives the call its id, its span, child of the caller's trace, and its line in the access log.
async fn name_call(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let mut request = body::read_to_the_end(request, &gateway);
    let ids = CallIds::new(&request, &gateway.access);
    let span = info_span!(
        "http",
        otel.name = format!("{} {}", request.method(), request.uri().path()),
        otel.kind = "server",
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        http.response.status_code = field::Empty,
        request_id = %ids.request,
        trace_id = field::Empty,
    );
    propagate::adopt(&span, request.headers());
    let (name, call) = (ids.name.clone(), ids.call.clone());
    request.extensions_mut().insert(ids);
    let mut response = match head::ambiguity(&request) {
        None => next.run(request).instrument(span.clone()).await,
        Some(problem) => head::refuse(problem),
    };
    let status = response.status().as_u16();
    span.record("http.response.status_code", status);
    call.answered(Status::Http(status));
    if let Some(error) = response.extensions_mut().remove::<HttpError>() {
        call.failed(error.reason());
        *response.body_mut() = openai::errors::body(&error).into();
    }
    response.headers_mut().insert(headers::REQUEST_ID, name);
    response
}

async fn authenticate(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let key = match gateway.keys.check(request.headers()) {
        Ok(key) => key,
        Err(error) => return HttpError::from(error).into_response(),
    };
    if let (Some(key), Some(ids)) = (&key, request.extensions_mut().get_mut::<CallIds>()) {
        ids.client = key.client();
        ids.call.of(key);
    }
    let names_workers = gateway.names_workers_to(key.as_deref());
    let asked = if names_workers { asked_why(&request) } else { None };
    let mut response = next.run(request).await;
    if let Some(key) = key {
        headers::add_standing(response.headers_mut(), &key.allowance);
    }
    if !names_workers {
        headers::hide_workers(response.headers_mut());
    }
    if let Some(call) = asked {
        headers::add_explanation(response.headers_mut(), &call);
    }
    response
}

/// The call, where its client wants to know why it is placed as it is.
fn asked_why(request: &Request) -> Option<Call> {
    let CallIds { call, .. } = request.extensions().get()?;
    headers::asks_why(request.headers()).then(|| call.ask_why())?;
    Some(call.clone())
}

async fn unknown_route(method: Method, uri: Uri) -> HttpError {
    about::unserved(&method, uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> HttpError {
    HttpError::wrong_method(&method, uri.path())
}
