//! `baton prefill-worker` and `baton decode-worker`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use cluster::rpc::Channels;
use cluster::{EtcdMembership, Membership};
use kv_transfer::transport::{
    GrpcTransport, InProcessTransport, LocalReceivers, Target, Transport,
};
use kv_transfer::{Sender, SenderConfig};
use tracing::{info, warn};
use words::{Address, Incarnation, Role, WorkerId};
use worker::node::BoundWorker;

use super::begin::Begun;
use crate::cli::WorkerNodeArgs;
use crate::ports::Ports;
use crate::progress;
use crate::settings::{Settings, Written};

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
    let (id, service) = (settings.worker_id(role), format!("baton-{role}-worker"));
    let begun = Begun::new(&settings, &settings.telemetry(&service, &id.0)?)?;
    let ran = serve(&settings, &begun, (role, id), args.node.ports_file.as_deref()).await;
    begun.telemetry.shutdown().await;
    ran
}

async fn serve(
    settings: &Settings,
    begun: &Begun,
    (role, id): (Role, WorkerId),
    ports_file: Option<&Path>,
) -> Result<()> {
    let Some(model) = begun.model(settings).await? else { return Ok(()) };
    settings.remarks_on(&model)?.iter().for_each(|remark| warn!("{remark}"));
    settings.check_memory(&model, 1)?;
    let config = settings.worker_node(role, id, &model)?;
    if let Some(host) =
        config.advertise_host.as_deref().filter(|_| config.listen.ip().is_unspecified())
    {
        info!(host, "other nodes reach this one by this host; --advertise-host says otherwise");
    }
    let bound = BoundWorker::bind(config).await?;
    let (grpc, admin) = (Some(bound.grpc_addr()), bound.admin_addr());
    Ports { grpc, admin, ..Ports::default() }.announce(ports_file)?;
    let membership: Arc<dyn Membership> = Arc::new(EtcdMembership::connect(settings.etcd()?)?);
    let progress = progress::loading(&format!("Loading {}", model.name));
    let left = begun.leave.clone().cancelled_owned();
    let ran = match role {
        Role::Prefill => {
            let sender = sender(None, bound.channels());
            prefill_worker::run(bound, membership.clone(), sender, progress, left).await
        }
        Role::Decode => decode_worker::run(bound, membership.clone(), None, progress, left).await,
    };
    membership.close().await;
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
