//! The decode worker: a receiver that brings KV blocks in, and an engine that generates from them.

#![forbid(unsafe_code)]

mod credit;
mod handoff;
mod inbound;
mod service;
mod stats;

use std::sync::Arc;

use cluster::Membership;
use cluster::rpc::MESSAGE_BYTES_MAX;
use cluster::telemetry::Metrics;
use engine::LoadProgress;
use kv_transfer::transport::{
    GrpcTransport, InProcessTransport, KvTransferService, LocalReceivers,
};
use kv_transfer::{Receiver, ReceiverConfig};
use proto::v1::decode_server::DecodeServer;
use tonic::service::Routes;
use worker::node::BoundWorker;
use worker::{Node, NodeServices, WorkerError};

use crate::credit::Credits;
use crate::inbound::Inbound;
use crate::service::DecodeService;
use crate::stats::HandoffStats;

/// Runs a bound decode worker until `leave` resolves and its work is done.
///
/// - `local`: lets prefill workers of the same process write without a socket.
///
/// # Errors
/// [`WorkerError`] if the model can't be loaded or a server fails.
pub async fn run(
    bound: BoundWorker,
    membership: Arc<dyn Membership>,
    local: Option<LocalReceivers>,
    progress: impl FnMut(LoadProgress) + Send + 'static,
    leave: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    let services = |node: &Node, metrics: &Metrics| services(node, metrics, local);
    bound.run(membership, progress, services, leave).await
}

fn services(node: &Node, metrics: &Metrics, local: Option<LocalReceivers>) -> NodeServices {
    let receiver = Receiver::new(
        node.engine.pool().clone(),
        node.engine.region(),
        ReceiverConfig { incarnation: node.address.incarnation.0, ..ReceiverConfig::default() },
    );
    worker::metrics::register_transfers(metrics, "received", receiver.stats());
    let mut transports = vec![GrpcTransport::NAME.to_owned()];
    let registration = local.map(|local| {
        transports.insert(0, InProcessTransport::NAME.to_owned());
        local.register(node.address.uri.clone(), receiver.clone())
    });
    let stats = HandoffStats::new(metrics);
    let inbound = Arc::new(Inbound {
        receiver: receiver.clone(),
        credits: Credits::default(),
        stats,
        transports: transports.clone(),
        _local: registration,
    });
    let decode = DecodeServer::new(DecodeService::new(node.clone(), inbound.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let transfer = KvTransferService::server(receiver);
    let routes = Routes::new(decode).add_service(transfer);
    NodeServices { routes, holdings: inbound, transports }
}
