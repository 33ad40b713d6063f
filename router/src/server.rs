//! Composes the gateways and serves them.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use cluster::rpc::{Listener, Server};
use cluster::telemetry::Metrics;
use cluster::{ClusterError, Lifecycle};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;
use tower::Layer as _;

use crate::dispatch::Generate;
use crate::grpc::InferenceService;
use crate::http::Peer;
use crate::{Gateway, GatewayConfig, GatewayLimits, RouterError, http};
use stall::Stalling;

mod stall;

/// A client must send its request's head within this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open answers have to end once the node has stopped: their streams end by themselves,
/// only their last bytes have to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// After an accept that failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A router, ready to serve.
#[derive(Debug)]
pub struct RouterConfig {
    /// The public HTTP address, bound.
    pub http: TcpListener,
    /// The public gRPC address, bound; `None`: no gRPC.
    pub grpc: Option<Listener>,
    /// Models, limits, keys.
    pub gateway: GatewayConfig,
}

/// Serves HTTP and gRPC until `node` has stopped.
///
/// While the node drains, running answers go on and new requests get 503. Dropping the future cuts
/// every connection.
///
/// # Errors
/// [`RouterError`] if the configuration makes no sense or a server breaks off.
pub async fn serve(
    config: RouterConfig,
    generate: Arc<dyn Generate>,
    metrics: Metrics,
    node: Lifecycle,
) -> Result<(), RouterError> {
    let limits = config.gateway.limits.clone();
    let gateway = Gateway::new(config.gateway, generate, &metrics, node.clone())?;
    let app = http::app(Arc::clone(&gateway), metrics);
    let http = serve_http(config.http, app, &limits, &node);
    let Some(listener) = config.grpc else {
        http.await;
        return Ok(());
    };
    let routes = Routes::new(InferenceService::server(gateway));
    let grpc = Server::new(listener, &node).serve(routes);
    let ((), grpc) = tokio::join!(http, grpc);
    grpc.map_err(|error: ClusterError| RouterError::Grpc(error.to_string()))
}

/// Serves `app` until the node has stopped, a limited number of connections at a time.
async fn serve_http(listener: TcpListener, app: Router, limits: &GatewayLimits, node: &Lifecycle) {
    let room = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    let stopped = node.stopped().clone();
    // Ends the connections' tasks when this future is dropped.
    let cut = tokio_util::sync::CancellationToken::new();
    let _cut = cut.clone().drop_guard();
    loop {
        let accept = async {
            // Closed never: the semaphore is ours.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accept => accepted,
            () = stopped.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let stalling = prepare(stream, limits);
                let connection =
                    serve_connection(stalling, app.clone(), peer.ip(), stopped.clone());
                let cut = cut.clone();
                connections.spawn(async move {
                    let _permit = permit;
                    cut.run_until_cancelled(connection).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(CLOSE_TIMEOUT, connections.wait()).await.is_err() {
        tracing::debug!(left = connections.len(), "cutting connections");
    }
}

fn prepare(stream: TcpStream, limits: &GatewayLimits) -> Stalling<TcpStream> {
    // Nagle's algorithm would hold tokens back for up to 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    Stalling::new(stream, limits.write_timeout)
}

/// Serves one connection, HTTP/1 or HTTP/2; asks it to close when the node has stopped.
async fn serve_connection(
    stream: Stalling<TcpStream>,
    app: Router,
    peer: IpAddr,
    stopped: tokio_util::sync::CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(HEAD_TIMEOUT));
    let service = TowerToHyperService::new(Extension(Peer(peer)).layer(app));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that leave are no news.
        tracing::debug!(error = %io::Error::other(error), "connection");
    }
}
