//! The prefill worker: an engine that computes prompts, and a sender that pushes their KV blocks.

#![forbid(unsafe_code)]

mod local;
mod outgoing;
mod prompts;
mod service;

use std::sync::Arc;

use cluster::Membership;
use cluster::rpc::MESSAGE_BYTES_MAX;
use cluster::telemetry::Metrics;
use engine::LoadProgress;
use kv_transfer::Sender;
use parking_lot::Mutex;
use proto::v1::decode_server::DecodeServer;
use proto::v1::prefill_server::PrefillServer;
use tonic::service::Routes;
use worker::node::BoundWorker;
use worker::{Entrance, Node, NodeServices, WorkerError};

use crate::local::LocalDecode;
use crate::outgoing::{OUTGOING_BYTES_MAX, Outgoing};
use crate::prompts::Prompts;
use crate::service::PrefillService;

/// Runs a bound prefill worker until `leave` resolves and its work is done.
///
/// - `sender`: pushes the KV blocks.
///
/// # Errors
/// [`WorkerError`] if the model can't be loaded or a server fails.
pub async fn run(
    bound: BoundWorker,
    membership: Arc<dyn Membership>,
    sender: Sender,
    progress: impl FnMut(LoadProgress) + Send + 'static,
    leave: impl Future<Output = ()>,
) -> Result<(), WorkerError> {
    let services = |node: &Node, metrics: &Metrics| services(node, metrics, sender);
    bound.run(membership, progress, services, leave).await
}

fn services(node: &Node, metrics: &Metrics, sender: Sender) -> NodeServices {
    worker::metrics::register_transfers(metrics, "sent", sender.stats());
    let block_bytes = node.engine.region().layout().block_bytes();
    let config = &node.config;
    let (step_tokens, waiting_max) = (config.engine.batch_tokens_max, config.credit_queue_max);
    let entrance = Entrance::for_prompts(node.engine.clone(), step_tokens, waiting_max);
    let outgoing = Arc::new(Outgoing::new(OUTGOING_BYTES_MAX / block_bytes));
    let prompts = Arc::new(Prompts { entrance, outgoing, sent: Mutex::default() });
    let prefill = PrefillService::new(node.clone(), sender, prompts.clone());
    let prefill = PrefillServer::new(prefill).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let decode = DecodeServer::new(LocalDecode::new(node.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    NodeServices {
        routes: Routes::new(prefill).add_service(decode),
        holdings: prompts,
        transports: Vec::new(),
    }
}
