//! gRPC for clients outside of the cluster: a server of HTTP/2, with its limits on what a stranger may hold.

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use tonic::service::Routes;
use tracing::{Instrument as _, info};

use super::nonsense::blame_callers;
use super::server::{report_health, span, with_reflection};
use crate::{ClusterError, HttpServer, Lifecycle};

/// Serves `routes`, health and reflection until the node has stopped. Dropping the future cuts every connection.
///
/// # Errors
/// [`ClusterError::Serve`] if the services can't be described.
pub async fn serve_clients(
    server: HttpServer,
    routes: Routes,
    node: &Lifecycle,
) -> Result<(), ClusterError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let routes = blame_callers(with_reflection(routes.add_service(health_service))?);
    let app = routes.into_axum_router().layer(middleware::from_fn(trace));
    info!(scheme = server.doorkeeper.scheme(), "serving gRPC to clients");
    tokio::select! {
        () = server.serve(app, node.stopped()) => {}
        () = report_health(node, &health) => {}
    }
    Ok(())
}

/// Gives the call its span, child of the caller's.
async fn trace(request: Request, next: Next) -> Response {
    let span = span(&request);
    next.run(request).instrument(span).await
}
