//! The HTTP server for operators: `/health`, `/ready`, `/metrics`.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;
use words::NodeState;

use super::metrics::{self, Metrics};
use crate::connections::{ConnectionLimits, Connections};
use crate::security::{Certificates, Doorkeeper};
use crate::{ClusterError, HttpServer, Lifecycle, Protocol};

/// Operators, scrapers and probes: a few. They must get through when clients have taken all else.
const CONNECTIONS_MAX: usize = 64;
const CONNECTIONS_PER_CLIENT_MAX: usize = 16;
/// For a request to come, and between two: longer than scrape intervals usually are.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A question about a node: fine, or why not.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What is asked when an operator asks whether the node is alive and ready.
pub struct Probes {
    node: Lifecycle,
    insecure: bool,
    alive: Vec<(&'static str, Check)>,
    ready: Vec<(&'static str, Check)>,
}

/// A bound port that isn't served yet.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    addr: SocketAddr,
    doorkeeper: Doorkeeper,
}

#[derive(Clone)]
struct AdminState {
    probes: Arc<Probes>,
    metrics: Metrics,
}

#[derive(Serialize)]
struct Answer {
    ok: bool,
    state: NodeState,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<Reason>,
}

#[derive(Serialize)]
struct Reason {
    check: &'static str,
    reason: String,
}

// === impl Probes ===

impl Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

impl Probes {
    /// Alive always, ready while the node is serving.
    #[must_use]
    pub fn new(node: &Lifecycle) -> Self {
        Self { node: node.clone(), insecure: false, alive: Vec::new(), ready: Vec::new() }
    }

    /// Says that nothing keeps strangers out, if so.
    #[must_use]
    pub fn insecure(self, insecure: bool) -> Self {
        Self { insecure, ..self }
    }

    /// Adds a condition for being alive. A node that isn't gets restarted: only for what a restart
    /// mends, such as an engine that has stopped.
    #[must_use]
    pub fn alive(
        mut self,
        check: &'static str,
        ask: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.alive.push((check, Box::new(ask)));
        self
    }

    /// Adds a condition for being ready.
    #[must_use]
    pub fn ready(
        mut self,
        check: &'static str,
        ask: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.ready.push((check, Box::new(ask)));
        self
    }

    fn health(&self) -> Answer {
        self.answer(&self.alive, Vec::new())
    }

    fn readiness(&self) -> Answer {
        let state = self.node.state();
        let mut reasons = Vec::new();
        if !state.takes_work() {
            reasons.push(Reason { check: "state", reason: format!("the node is {}", name(state)) });
        }
        self.answer(&self.ready, reasons)
    }

    fn answer(&self, checks: &[(&'static str, Check)], mut reasons: Vec<Reason>) -> Answer {
        for (check, ask) in checks {
            if let Err(reason) = ask() {
                reasons.push(Reason { check, reason });
            }
        }
        Answer {
            ok: reasons.is_empty(),
            state: self.node.state(),
            insecure: self.insecure,
            reasons,
        }
    }
}

// === impl AdminServer ===

impl AdminServer {
    /// Binds `addr`; port 0 picks a free one.
    ///
    /// # Errors
    /// [`ClusterError::Bind`] if the port is taken or not allowed.
    pub async fn bind(addr: SocketAddr) -> Result<Self, ClusterError> {
        let bind = |source| ClusterError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, addr, doorkeeper: Doorkeeper::Open })
    }

    /// The same, showing a certificate.
    #[must_use]
    pub fn showing(self, certificates: Option<&Arc<Certificates>>) -> Self {
        Self { doorkeeper: Doorkeeper::showing(certificates), ..self }
    }

    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the node has stopped.
    pub async fn serve(self, probes: Probes, metrics: Metrics) {
        let stopped = probes.node.stopped().clone();
        self.serve_app(routes(probes, metrics), &stopped).await;
    }

    /// Serves a node's own routes for operators, until `stopped`.
    pub async fn serve_app(self, app: Router, stopped: &CancellationToken) {
        info!(addr = %self.addr, "serving health and metrics");
        let server = HttpServer {
            listener: self.listener,
            connections: Connections::new(limits()),
            doorkeeper: self.doorkeeper,
            head_timeout: IDLE_TIMEOUT,
            protocol: Protocol::Http,
        };
        server.serve(app, stopped).await;
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits {
        open_max: CONNECTIONS_MAX,
        per_client_max: CONNECTIONS_PER_CLIENT_MAX,
        idle_timeout: Some(IDLE_TIMEOUT),
        reader_timeout: Some(IDLE_TIMEOUT),
        ..ConnectionLimits::default()
    }
}

fn routes(probes: Probes, metrics: Metrics) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(AdminState { probes: Arc::new(probes), metrics })
}

async fn health(State(state): State<AdminState>) -> Response {
    answer(state.probes.health())
}

async fn ready(State(state): State<AdminState>) -> Response {
    answer(state.probes.readiness())
}

async fn scrape(State(state): State<AdminState>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], state.metrics.encode()).into_response()
}

fn answer(answer: Answer) -> Response {
    let status = if answer.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(answer)).into_response()
}

fn name(state: NodeState) -> &'static str {
    match state {
        NodeState::Starting => "starting",
        NodeState::Serving => "serving",
        NodeState::Draining => "draining",
        NodeState::HoldingKv => "holding-kv",
        NodeState::Gone => "gone",
    }
}
