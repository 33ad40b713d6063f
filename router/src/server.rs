//! Composes the gateways and serves them.

use std::sync::Arc;

use cluster::connections::Connections;
use cluster::rpc::serve_clients;
use cluster::security::{Certificates, Doorkeeper};
use cluster::telemetry::{AdminServer, Metrics};
use cluster::{ClusterError, HttpServer, Lifecycle, Protocol};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::callers::access::AccessLog;
use crate::dispatch::Generate;
use crate::grpc::InferenceService;
use crate::{Gateway, GatewayConfig, RouterError};

mod about;
mod app;
mod cors;
mod probes;

pub use app::{admin, app};

/// A router, ready to serve.
#[derive(Debug)]
pub struct RouterConfig {
    /// The public HTTP address, bound.
    pub http: TcpListener,
    /// The public gRPC address, bound; `None`: no gRPC.
    pub grpc: Option<TcpListener>,
    /// What clients see of both; `None`: they are met unencrypted.
    pub certificates: Option<Arc<Certificates>>,
    /// Where operators find health, readiness and metrics; `None`: nowhere.
    pub admin: Option<AdminServer>,
    /// Counts SIGHUPs, at each of which the file of API keys is read again; `None`: only when it changes.
    pub hangups: Option<watch::Receiver<u64>>,
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
    let limits = &config.gateway.limits;
    let readers_cut = metrics.counter(
        "baton_readers_cut",
        "Answers ended because their clients read nothing of them for too long",
    );
    let connections = Connections::new(limits.connections.clone()).counting(readers_cut);
    let head_timeout = limits.head_timeout;
    let gateway = Gateway::new(config.gateway, generate, &metrics, node.clone())?;
    let app = app(Arc::clone(&gateway));
    if let Some(admin) = config.admin {
        let app = app::admin(Arc::clone(&gateway), metrics);
        let stopped = node.stopped().clone();
        node.tasks().spawn(async move { admin.serve_app(app, &stopped).await });
    }
    let (keys, stopped, hangups) = (Arc::clone(&gateway), node.stopped().clone(), config.hangups);
    node.tasks().spawn(async move { stopped.run_until_cancelled(keys.keys.follow(hangups)).await });
    node.tasks().spawn(tell(gateway.access.clone(), node.stopped().clone()));
    let server = |listener, protocol| HttpServer {
        listener,
        connections: connections.clone(),
        doorkeeper: Doorkeeper::showing(config.certificates.as_ref()),
        head_timeout,
        protocol,
    };
    let http = server(config.http, Protocol::Http).serve(app, node.stopped());
    let Some(listener) = config.grpc else {
        http.await;
        return Ok(());
    };
    let routes = InferenceService::routes(gateway);
    let grpc = serve_clients(server(listener, Protocol::Grpc), routes, &node);
    let ((), grpc) = tokio::join!(http, grpc);
    grpc.map_err(|error: ClusterError| RouterError::Grpc(error.to_string()))
}

/// Tells of access lines that are left out, to the last.
async fn tell(access: Arc<AccessLog>, stopped: CancellationToken) {
    stopped.run_until_cancelled(access.follow()).await;
    access.report();
}

#[cfg(test)]
mod tests;
