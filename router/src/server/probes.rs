//! The models served, and how the router fares.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cluster::telemetry::Metrics;
use cluster::telemetry::metrics::CONTENT_TYPE as METRICS_TYPE;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use words::Role;

use crate::Gateway;
use crate::dispatch::{EditionReadiness, Readiness};
use crate::http::error::HttpError;
use crate::served_model::ServedModel;

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelShape>,
}

#[derive(Serialize)]
struct ModelShape {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// The model that an alias stands for.
    root: String,
    max_model_len: u32,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    workers: BTreeMap<Role, u32>,
    reasons: Vec<String>,
    fingerprints: Vec<EditionReadiness>,
}

/// `GET /v1/models`: every name, aliases too.
pub(super) async fn models(State(gateway): State<Arc<Gateway>>) -> Response {
    let models = gateway.models().all().iter();
    let data = models.flat_map(|model| {
        let names = std::iter::once(&model.name).chain(&model.aliases);
        names.map(|name| ModelShape::new(name, model)).collect::<Vec<_>>()
    });
    Json(ModelList { object: "list", data: data.collect() }).into_response()
}

/// `GET /v1/models/{name}`; names may contain slashes.
pub(super) async fn model(
    State(gateway): State<Arc<Gateway>>,
    Path(name): Path<String>,
) -> Result<Response, HttpError> {
    let model = gateway.models().get(&name)?;
    Ok(Json(ModelShape::new(&name, model)).into_response())
}

/// `GET /health`: the process answers.
pub(super) async fn health() -> Response {
    Json(serde_json::json!({"status": "ok"})).into_response()
}

/// `GET /ready` of the public address: whether a request sent now would be served, and no more.
pub(super) async fn ready_for_strangers(State(gateway): State<Arc<Gateway>>) -> Response {
    let ready = gateway.readiness().ready;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({"ready": ready}))).into_response()
}

/// `GET /ready`: whether a request sent now would be served, and if not, why.
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>) -> Response {
    let readiness = gateway.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let Readiness { ready, workers, reasons, fingerprints } = readiness;
    let insecure = gateway.config.insecure;
    let answer = Ready { ready, insecure, workers, reasons, fingerprints };
    (status, Json(answer)).into_response()
}

/// `GET /metrics`.
pub(super) async fn metrics(Extension(metrics): Extension<Metrics>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], metrics.encode()).into_response()
}

// === impl ModelShape ===

impl ModelShape {
    fn new(name: &str, model: &ServedModel) -> Self {
        Self {
            id: name.to_owned(),
            object: "model",
            created: model.created_s,
            owned_by: "baton",
            root: model.name.clone(),
            max_model_len: model.context_tokens_max,
        }
    }
}
