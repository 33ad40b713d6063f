//! `baton prefill-worker` and `baton decode-worker`.

use std::sync::Arc;

use anyhow::Result;
use cluster::rpc::Channels;
use cluster::{EtcdMembership, Membership};
use kv_transfer::transport::{
    GrpcTransport, InProcessTransport, LocalReceivers, Target, Transport,
};
use kv_transfer::{Sender, SenderConfig};
use scheduler::{Address, Incarnation, Role};
use worker::node::BoundWorker;

use crate::cli::WorkerNodeArgs;
use crate::ports::Ports;
use crate::progress;
use crate::settings::Written;

/// Parallel connections to one receiver: one is bound to a core at each end (about 2 GB/s), four
/// carry 11 GB/s.
const LANES: usize = 4;

/// Runs the command.
///
/// # Errors
/// If a setting is wrong, a port is taken, the model can't be loaded, or a newer life of the worker
/// is registered.
pub(crate) async fn run(args: WorkerNodeArgs, role: Role) -> Result<()> {
    let settings = Written::merge(args.node.config.as_deref(), &args.written())?.validate()?;
    let request = settings.model_request();
    let model = tokio::task::spawn_blocking(move || request.resolve()).await??;
    let config = settings.worker_node(role, &model)?;
    let service = format!("baton-{role}-worker");
    let telemetry = cluster::telemetry::init(&settings.telemetry(&service, &config.id.0)?)?;
    let leave = cluster::shutdown_signal()?;
    let bound = BoundWorker::bind(config).await?;
    let (grpc, admin) = (Some(bound.grpc_addr()), bound.admin_addr());
    Ports { grpc, admin, ..Ports::default() }.announce(args.node.ports_file.as_deref())?;
    let membership: Arc<dyn Membership> = Arc::new(EtcdMembership::connect(settings.etcd()?)?);
    let progress = progress::loading(&format!("Loading {}", model.name));
    let left = leave.cancelled_owned();
    let ran = match role {
        Role::Prefill => {
            let sender = sender(None, bound.channels());
            prefill_worker::run(bound, membership.clone(), sender, progress, left).await
        }
        Role::Decode => decode_worker::run(bound, membership.clone(), None, progress, left).await,
    };
    membership.close().await;
    telemetry.shutdown().await;
    Ok(ran?)
}

/// The sending side of hand-offs: over gRPC, and without a socket to receivers of this process.
pub(crate) fn sender(local: Option<LocalReceivers>, channels: Channels) -> Sender {
    let dial = move |target: &Target, lane: usize| {
        let address = Address {
            worker: target.worker.as_str().into(),
            incarnation: Incarnation(target.incarnation),
            uri: target.uri.clone(),
        };
        Ok(channels.bulk(&address, Role::Decode, lane as u8))
    };
    let mut transports: Vec<Arc<dyn Transport>> =
        vec![Arc::new(GrpcTransport::with_dial(LANES, Arc::new(dial)))];
    if let Some(local) = local {
        transports.push(Arc::new(InProcessTransport::new(local)));
    }
    Sender::new(kv_transfer::Transports::new(transports), SenderConfig::default())
}
