//! A node's gRPC server.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{Span, field, info, info_span};
use words::NodeState;

use super::accept::{Incoming, Source};
use super::net::Accept;
use super::nonsense::blame_callers;
use crate::connections::{ConnectionLimits, Connections, CountCalls};
use crate::security::{Doorkeeper, Guard, Security};
use crate::telemetry::propagate;
use crate::{ClusterError, Lifecycle};

/// Room for one stream's bytes in flight: bandwidth times delay of a 100 Gbit/s link at 0.3 ms is
/// 4 MB; twice that keeps a hand-off from waiting for window updates.
pub(super) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Room for several hand-offs at once on a connection.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// HTTP/2's default of 16 KiB costs a header and a wake-up per 16 KiB of KV.
pub(super) const FRAME_BYTES_MAX: u32 = 1 << 20;
/// A dead peer that is called is noticed within interval and timeout together.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(2);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a caller may be silent: longer than a peer that is called. A router that is stopped for a
/// while comes back to its streams; what it does not read meanwhile soon makes its sequences pause.
const CALLER_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long open calls have to end after the node has stopped, before connections are cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A call's metadata; nodes send some hundred bytes.
const HEAD_BYTES_MAX: u32 = 32 << 10;

/// A bound port that isn't served yet.
///
/// Bound early, so that the address is known (port 0 picks a free one) before it is published, and
/// callers queue in the kernel rather than fail while the node still loads.
pub struct Listener {
    source: Source,
    addr: SocketAddr,
    doorkeeper: Doorkeeper,
    guard: Guard,
}

/// A node's gRPC server.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    node: Lifecycle,
    connections: Connections,
}

// === impl Listener ===

impl Listener {
    /// Binds `addr`.
    ///
    /// # Errors
    /// [`ClusterError::Bind`] if the port is taken or not allowed.
    pub async fn bind(addr: SocketAddr) -> Result<Self, ClusterError> {
        let bind = |source| ClusterError::Bind { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        Ok(Self::new(Source::Tcp(listener), addr))
    }

    /// Takes connections from another network, on which this node is `addr`.
    #[must_use]
    pub fn over(accept: Box<dyn Accept>, addr: SocketAddr) -> Self {
        Self::new(Source::Other(accept), addr)
    }

    fn new(source: Source, addr: SocketAddr) -> Self {
        let security = Security::open();
        Self { source, addr, doorkeeper: security.doorkeeper(), guard: security.guard() }
    }

    /// For other nodes: lets in whom `security` does, and to what their role needs.
    #[must_use]
    pub fn for_nodes(self, security: &Security) -> Self {
        Self { doorkeeper: security.doorkeeper(), guard: security.guard(), ..self }
    }

    /// The address bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://host:port`, or `https`, for peers who know this host as `host`.
    #[must_use]
    pub fn uri(&self, host: &str) -> String {
        let (scheme, port) = (self.doorkeeper.scheme(), self.addr.port());
        if host.contains(':') && !host.starts_with('[') {
            return format!("{scheme}://[{host}]:{port}");
        }
        format!("{scheme}://{host}:{port}")
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("addr", &self.addr).finish_non_exhaustive()
    }
}

// === impl Server ===

impl Server {
    /// A server for the node's peers, on a port bound before.
    #[must_use]
    pub fn new(listener: Listener, node: &Lifecycle) -> Self {
        let connections = Connections::new(ConnectionLimits::default());
        Self { listener, node: node.clone(), connections }
    }

    /// The same with other limits on its connections.
    #[must_use]
    pub fn with_connections(self, connections: Connections) -> Self {
        Self { connections, ..self }
    }

    /// Serves `routes`, health and reflection until the node has stopped.
    ///
    /// Health follows the node's state: only a serving node is `SERVING`. Once the node is gone, no
    /// connection is accepted, open calls have a second to end, then connections are cut. Dropping
    /// the future cuts them at once.
    ///
    /// # Errors
    /// [`ClusterError::Serve`] if the server breaks off.
    pub async fn serve(self, routes: Routes) -> Result<(), ClusterError> {
        let Self { listener, node, connections } = self;
        let Listener { source, addr, doorkeeper, guard } = listener;
        let (health, health_service) = tonic_health::server::health_reporter();
        let routes = blame_callers(with_reflection(routes.add_service(health_service))?);
        let cut = CancellationToken::new();
        // Whoever drops this future, as a test that kills a node does, closes its connections too.
        let _cut = cut.clone().drop_guard();
        info!(%addr, scheme = doorkeeper.scheme(), "serving gRPC");
        let incoming = Incoming::new(source, addr, connections, doorkeeper, cut.clone());
        let mut server = builder().layer(CountCalls::default()).layer(guard);
        let serve = server
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, node.stopped().clone().cancelled_owned());
        let close = async {
            node.stopped().cancelled().await;
            tokio::time::sleep(CLOSE_TIMEOUT).await;
            cut.cancel();
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        };
        tokio::select! {
            served = serve => served.map_err(|error| ClusterError::Serve(error.to_string())),
            () = close => Ok(()),
            () = report_health(&node, &health) => Ok(()),
        }
    }
}

/// Sets the health service to the node's state, for as long as that is known.
pub(super) async fn report_health(node: &Lifecycle, health: &HealthReporter) {
    let mut states = node.states();
    loop {
        let status = match *states.borrow_and_update() {
            NodeState::Serving => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        };
        // The empty name stands for the server as a whole.
        health.set_service_status("", status).await;
        if states.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Adds the services' descriptions, for `grpcurl` and its like.
pub(super) fn with_reflection(routes: Routes) -> Result<Routes, ClusterError> {
    let descriptions = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let failed = |error| ClusterError::Serve(format!("reflection: {error}"));
    // Many clients know only the older name of the same service.
    let older = descriptions().build_v1alpha().map_err(failed)?;
    Ok(routes.add_service(descriptions().build_v1().map_err(failed)?).add_service(older))
}

fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(CALLER_PING_TIMEOUT))
        .http2_max_header_list_size(HEAD_BYTES_MAX)
        .trace_fn(span)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
}

/// A span for a call, child of the caller's.
pub(super) fn span<B>(request: &http::Request<B>) -> Span {
    let path = request.uri().path();
    if path.starts_with("/grpc.") || path.ends_with("/Report") {
        return Span::none();
    }
    let span = info_span!(
        "rpc",
        otel.name = path,
        otel.kind = "server",
        rpc.system = "grpc",
        trace_id = field::Empty,
    );
    propagate::adopt(&span, request.headers());
    span
}
