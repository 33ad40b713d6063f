//! `baton up`: a whole cluster in one process.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use cluster::{Membership, MemoryMembership};
use console::style;
use engine::backend::cuda::SmPartition;
use kv_transfer::transport::LocalReceivers;
use scheduler::{HandoffPolicy, Role, WorkerId};
use tokio_util::sync::CancellationToken;
use worker::WorkerConfig;
use worker::node::BoundWorker;

use super::router::BoundRouter;
use super::workers::sender;
use crate::cli::UpArgs;
use crate::model::LocalModel;
use crate::ports::Ports;
use crate::progress;
use crate::settings::{Settings, Written};

/// Runs the command.
///
/// # Errors
/// If a setting is wrong, a port is taken, the model can't be loaded, or a node fails.
pub(crate) async fn run(args: UpArgs) -> Result<()> {
    let settings = Written::merge(args.node.config.as_deref(), &args.written())?.validate()?;
    let mut telemetry = settings.telemetry("baton", "up")?;
    if !settings.log_is_set() {
        // The welcome says what there is to say.
        telemetry.filter = "warn".to_owned();
    }
    let telemetry = cluster::telemetry::init(&telemetry)?;
    let leave = cluster::shutdown_signal()?;
    let request = settings.model_request();
    let model = tokio::task::spawn_blocking(move || request.resolve()).await??;
    let house = House::bind(&settings, &model).await?;
    house.ports.announce_quietly(args.node.ports_file.as_deref())?;
    let ran = house.run(&settings, &model, leave).await;
    telemetry.shutdown().await;
    ran
}

/// A router and two workers whose ports are bound.
struct House {
    router: BoundRouter,
    prefill: BoundWorker,
    decode: BoundWorker,
    ports: Ports,
}

// === impl House ===

impl House {
    async fn bind(settings: &Settings, model: &LocalModel) -> Result<Self> {
        let partition = settings.partition()?;
        let config = |role| worker_config(settings, role, model, &partition);
        let prefill = BoundWorker::bind(config(Role::Prefill)?).await?;
        let decode = BoundWorker::bind(config(Role::Decode)?).await?;
        let router = BoundRouter::bind(settings, model.clone()).await?;
        let ports = Ports {
            http: Some(router.http()),
            grpc: Some(router.grpc()),
            admin: None,
            prefill_admin: prefill.admin_addr(),
            decode_admin: decode.admin_addr(),
        };
        Ok(Self { router, prefill, decode, ports })
    }

    /// Runs the three until `leave`, or until one of them fails. The router leaves first, so that
    /// running answers end on workers that are still there.
    async fn run(
        self,
        settings: &Settings,
        model: &LocalModel,
        leave: CancellationToken,
    ) -> Result<()> {
        let Self { router, prefill, decode, ports } = self;
        // Two workers on one GPU share its time, so a hand-off has to pay there.
        let shares_gpu = decode.config().engine.model.cuda.is_some();
        let usual = if shares_gpu { HandoffPolicy::Auto } else { HandoffPolicy::Always };
        let membership = MemoryMembership::new();
        let shared: Arc<dyn Membership> = Arc::new(membership.clone());
        let receivers = LocalReceivers::default();
        let progress = progress::loading(&format!("Loading {}", model.name));
        let workers_leave = CancellationToken::new();
        let (left, also_left) = (workers_leave.clone(), workers_leave.clone());
        let prefill = prefill_worker::run(
            prefill,
            shared.clone(),
            sender(Some(receivers.clone())),
            |_| {},
            left.cancelled_owned(),
        );
        let decode = decode_worker::run(
            decode,
            shared,
            Some(receivers),
            progress,
            also_left.cancelled_owned(),
        );
        let policy = settings.handoff(usual)?;
        let welcome = welcome(&membership, &ports, model);
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
        let prefill = async { prefill.await.context("the prefill worker") };
        let decode = async { decode.await.context("the decode worker") };
        tokio::try_join!(router, prefill, decode)?;
        Ok(())
    }
}

fn worker_config(
    settings: &Settings,
    role: Role,
    model: &LocalModel,
    partition: &SmPartition,
) -> Result<WorkerConfig> {
    let id = WorkerId(format!("{role}-0").into());
    let mut config = settings.worker(role, model)?;
    if let Some(cuda) = &mut config.engine.model.cuda {
        // The other half is the other worker's.
        cuda.memory_share /= 2.0;
        cuda.partition = Some(partition.seat(role));
    }
    Ok(WorkerConfig { id, ..config })
}

/// Waits until both workers serve, then says what to try.
async fn welcome(membership: &MemoryMembership, ports: &Ports, model: &LocalModel) {
    let mut view = membership.view();
    // The view never closes while the membership lives.
    let _ = view.wait_for(|members| members.workers.len() == 2).await;
    let (Some(http), Some(grpc)) = (ports.http, ports.grpc) else { return };
    let admin = |addr: Option<std::net::SocketAddr>| {
        addr.map_or_else(String::new, |addr| format!("http://{addr}/metrics"))
    };
    let dim = |text: &str| style(text.to_owned()).dim();
    println!("{} serves {}\n", style("Baton").bold(), style(&model.name).bold());
    println!("  {}   http://{http}/v1", dim("OpenAI API"));
    println!("  {}         {grpc}", dim("gRPC"));
    println!("  {}      http://{http}/metrics", dim("metrics"));
    println!("  {}      {}", dim("prefill"), admin(ports.prefill_admin));
    println!("  {}       {}\n", dim("decode"), admin(ports.decode_admin));
    println!("{}", dim("Try, in another terminal:"));
    println!("  baton chat --url http://{http}");
    println!(
        "  curl -N http://{http}/v1/chat/completions -H 'content-type: application/json' \\\n    \
         -d '{{\"model\": \"{}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \
         \"content\": \"What is a KV cache?\"}}]}}'\n",
        model.name
    );
    println!("{}", dim("Ctrl-C leaves."));
}
