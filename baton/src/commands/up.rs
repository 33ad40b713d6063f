//! `baton up`: a whole cluster in one process.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cluster::security::{Identity, NodeRole, Security, random_secret};
use cluster::{Membership, MemoryMembership};
use engine::ModelOptions;
use engine::backend::cuda::{SmPartition, SmSplit};
use futures::future::OptionFuture;
use kv_transfer::transport::LocalReceivers;
use scheduler::HandoffPolicy;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use words::{Role, WorkerId};
use worker::WorkerConfig;
use worker::node::BoundWorker;

use super::begin::Begun;
use super::router::{BoundRouter, UsualPort};
use super::workers::sender;
use crate::cli::UpArgs;
use crate::model::LocalModel;
use crate::ports::Ports;
use crate::progress;
use crate::settings::{Settings, Written};
use welcome::Welcome;

mod welcome;

/// Runs the command.
///
/// # Errors
/// If a setting is wrong, a port is taken, the model can't be loaded, or a node fails.
pub(crate) async fn run(args: UpArgs) -> Result<()> {
    let settings = Written::merge(args.node.config.as_deref(), &args.written())?.validate()?;
    let mut telemetry = settings.telemetry("baton", "up")?;
    if !settings.log_is_set() {
        // The welcome says what there is to say, and then each request has its line.
        telemetry.filter =
            "warn,access=info,cluster::node::signal=info,router::callers::keys=info".to_owned();
    }
    let begun = Begun::new(&settings, &telemetry)?;
    let ran = serve(&settings, &begun, args.node.ports_file.as_deref()).await;
    begun.telemetry.shutdown().await;
    ran
}

async fn serve(settings: &Settings, begun: &Begun, ports_file: Option<&Path>) -> Result<()> {
    let Some(model) = begun.model(settings).await? else { return Ok(()) };
    settings.remarks_on(&model)?.iter().for_each(|remark| warn!("{remark}"));
    if settings.security(NodeRole::Router, "*")?.is_locked() {
        warn!("certificates and secrets between nodes have no effect: `up` is one process");
    }
    let binding = House::bind(settings, &model, begun.hangups.clone());
    let Some(house) = begun.unless_leaving(binding).await? else { return Ok(()) };
    house.ports.announce_quietly(ports_file)?;
    house.run(settings, &model, begun.leave.clone()).await
}

/// A router and its workers, whose ports are bound.
struct House {
    router: BoundRouter,
    /// None where no prompt is handed over: then it would take memory for nothing.
    prefill: Option<BoundWorker>,
    decode: BoundWorker,
    policy: HandoffPolicy,
    ports: Ports,
}

// === impl House ===

impl House {
    async fn bind(
        settings: &Settings,
        model: &LocalModel,
        hangups: watch::Receiver<u64>,
    ) -> Result<Self> {
        let (partition, policy) = (settings.partition()?, policy(settings, model)?);
        let has_prefill = policy != HandoffPolicy::Never;
        let shared = has_prefill.then_some(&partition);
        settings.check_memory(model, 1 + u32::from(has_prefill))?;
        // So that nobody steps around the keys through the workers' ports.
        let secret = settings.has_api_keys().then(random_secret).transpose()?;
        let config = |role| -> Result<WorkerConfig> {
            let config = worker_config(settings, role, model, shared)?;
            let security = member(secret.as_deref(), role.into(), &config.id.0)?;
            settings.locked(config, security)
        };
        let prefill = match has_prefill {
            true => Some(BoundWorker::bind(config(Role::Prefill)?).await?),
            false => None,
        };
        let decode = BoundWorker::bind(config(Role::Decode)?).await?;
        let security = member(secret.as_deref(), NodeRole::Router, "*")?;
        let router = BoundRouter::bind(settings, model.clone(), security, UsualPort::Likely)
            .await?
            .with_debug_headers(settings.debug_headers_of_up()?)
            .obeying_hangups(hangups);
        let ports = Ports {
            prefill_admin: prefill.as_ref().and_then(BoundWorker::admin_addr),
            decode_admin: decode.admin_addr(),
            ..router.ports()
        };
        Ok(Self { router, prefill, decode, policy, ports })
    }

    /// Runs all until `leave`, or until one of them fails. The router leaves first, so that
    /// running answers end on workers that are still there.
    async fn run(
        self,
        settings: &Settings,
        model: &LocalModel,
        leave: CancellationToken,
    ) -> Result<()> {
        let Self { router, prefill, decode, policy, ports } = self;
        let workers = 1 + usize::from(prefill.is_some());
        let membership = MemoryMembership::new();
        let shared: Arc<dyn Membership> = Arc::new(membership.clone());
        let receivers = LocalReceivers::default();
        let progress = progress::loading(&format!("Loading {}", model.name));
        let workers_leave = CancellationToken::new();
        let (left, also_left) = (workers_leave.clone(), workers_leave.clone());
        let (registry, local) = (shared.clone(), receivers.clone());
        let prefill: OptionFuture<_> = prefill
            .map(|prefill| {
                let leave = left.cancelled_owned();
                let sender = sender(Some(local), prefill.channels());
                prefill_worker::run(prefill, registry, sender, |_| {}, leave)
            })
            .into();
        let decode = decode_worker::run(
            decode,
            shared,
            Some(receivers),
            progress,
            also_left.cancelled_owned(),
        );
        let welcome = welcome(settings, model, ports, router.chats())?;
        let welcome = welcome.say(&membership, workers);
        let router = async {
            let leave = async {
                tokio::select! {
                    () = welcome => leave.cancelled().await,
                    () = leave.cancelled() => {}
                }
            };
            let ran = router.run(settings, &membership, policy, leave).await;
            workers_leave.cancel();
            ran
        };
        let prefill = async { prefill.await.transpose().context("the prefill worker") };
        let decode = async { decode.await.context("the decode worker") };
        tokio::try_join!(router, prefill, decode)?;
        Ok(())
    }
}

/// A node of this process, which meets those who know the secret.
fn member(secret: Option<&str>, role: NodeRole, id: &str) -> Result<Security> {
    let Some(secret) = secret else { return Ok(Security::open()) };
    Ok(Security::with_secret(secret.as_bytes(), Identity::new("up", role, id))?)
}

/// Where prompts are computed. Two workers without a GPU show the whole path of a hand-off. On one GPU they
/// share its time, and one engine that computes prompts beside its sequences answers sooner, unless
/// the GPU was to be divided.
fn policy(settings: &Settings, model: &LocalModel) -> Result<HandoffPolicy> {
    let is_gpu = settings.engine(Role::Decode, model)?.model.cuda.is_some();
    let usual = match settings.split()? {
        _ if !is_gpu => HandoffPolicy::Always,
        SmSplit::Off => HandoffPolicy::Never,
        SmSplit::Auto | SmSplit::Decode(_) => HandoffPolicy::Auto,
    };
    settings.handoff(usual)
}

/// - `shared`: how the worker and another one share a GPU; `None` where it is alone.
fn worker_config(
    settings: &Settings,
    role: Role,
    model: &LocalModel,
    shared: Option<&SmPartition>,
) -> Result<WorkerConfig> {
    let id = WorkerId(format!("{role}-0").into());
    let mut config = settings.worker(role, id, model)?;
    if let (Some(cuda), Some(partition)) = (&mut config.engine.model.cuda, shared) {
        // The other half is the other worker's.
        cuda.memory_share /= 2.0;
        cuda.partition = Some(partition.seat(role));
    }
    Ok(config)
}

/// What there is to say once all of it serves.
fn welcome(settings: &Settings, model: &LocalModel, ports: Ports, chats: bool) -> Result<Welcome> {
    Ok(Welcome {
        model: model.name.clone(),
        device: device(&settings.engine(Role::Decode, model)?.model),
        ports,
        door: settings.door()?,
        admin_tls: settings.has_admin_tls(),
        chats,
        program: welcome::program(),
    })
}

/// What the model runs on, in words.
fn device(options: &ModelOptions) -> String {
    let Some(cuda) = &options.cuda else {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = options.threads.unwrap_or_else(cores);
        return format!("CPU, {threads} {}", if threads == 1 { "thread" } else { "threads" });
    };
    let gpus = engine::cuda::probe().unwrap_or_default();
    let name = gpus.into_iter().nth(cuda.ordinal).map_or("GPU".into(), |gpu| gpu.name);
    format!("{name} (cuda:{})", cuda.ordinal)
}
