//! The processes of a cluster, put together as the command does, on simulated ground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::connections::ConnectionLimits;
use cluster::load::LoadConfig;
use cluster::rpc::{Channels, Listener};
use cluster::security::{Identity, NodeRole, Security};
use cluster::telemetry::Metrics;
use cluster::{EtcdConfig, EtcdMembership, Lifecycle, LoadWatcher, Membership};
use engine::{DrivenEngine, EngineConfig, EngineHandle, EngineInfo, ModelOptions, Turn};
use kv_cache::{BlockPool, KvRegion};
use kv_transfer::transport::{Faults, Faulty, GrpcTransport};
use kv_transfer::{Sender, SenderConfig, Target, Transport, Transports};
use parking_lot::Mutex;
use router::dispatch::{AdmissionConfig, Dispatcher, DispatcherConfig};
use scheduler::{
    Address, ClusterSnapshot, HandoffPolicy, Incarnation, LeastLoad, Placer, Role, WorkerId,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use worker::node::{BoundWorker, Ground};
use worker::{WorkerConfig, WorkerError};

use crate::checks::Verdicts;
use crate::client::Clients;
use crate::etcd::{self, Disk, Store};
use crate::memory::Memory;
use crate::network::{HostId, Wire};
use crate::planted::{Bug, Bugged, Eternal};
use crate::script::{self, BLOCK_TOKENS, Script};

/// KV blocks of a worker: enough for some requests at a time, and few enough to run out.
const BLOCKS: u32 = 48;
const SEQUENCES_MAX: u32 = 6;
const MODEL: &str = "script";
/// The cluster's name.
pub const NAMESPACE: &str = "simulation";
const ETCD: HostId = HostId(1);
const SECRET: &[u8] = b"the secret of the simulation";
/// Time between two reports: more than usual, for they are most of what goes over the network.
const REPORTS: Duration = Duration::from_millis(250);
/// A step takes this long, and a bit for each token.
const STEP: Duration = Duration::from_millis(3);
const STEP_PER_TOKEN: Duration = Duration::from_micros(200);
/// How often an engine that can't move looks again.
const STALLED: Duration = Duration::from_millis(1);
/// Few pages a message, so that a hand-off takes several.
const MESSAGE_BYTES: usize = 256;
const LANES: usize = 2;

/// Where a process stands.
#[derive(Clone)]
pub struct Place {
    /// Which host.
    pub host: HostId,
    /// Its network.
    pub wire: Wire,
    /// What its wall clock says.
    pub wall: SystemTime,
    /// The process's randomness.
    pub seed: u64,
    /// Its tasks.
    pub tasks: TaskTracker,
    /// What is planted.
    pub bug: Option<Bug>,
    /// Whether nodes prove to each other who they are.
    pub is_locked: bool,
    /// Whether reports arrive as they were sent.
    pub reports_hold: bool,
    /// Where violations go.
    pub verdicts: Verdicts,
}

/// A worker to be.
#[derive(Clone)]
pub struct WorkerSpec {
    /// Which phase it is named for.
    pub role: Role,
    /// Which model it has.
    pub weights: u64,
    /// What is said to go wrong with what it sends.
    pub faults: Faults,
    /// Told of its blocks once it has some.
    pub pool: Arc<Mutex<Option<BlockPool>>>,
    /// Told when it has to leave.
    pub leave: CancellationToken,
}

/// Runs etcd.
pub async fn etcd(place: Place, disk: Disk) {
    etcd::serve(place.listener(), Store::open(disk)).await;
}

/// Runs a router, and the clients that ask it.
pub async fn router(place: Place, clients: Clients) {
    let security = place.security(NodeRole::Router, "router");
    let channels = Channels::over(Arc::new(place.wire.clone())).secured(&security);
    let membership = place.membership();
    let watched = LoadConfig {
        namespace: NAMESPACE.to_owned(),
        report_interval: REPORTS,
        ..LoadConfig::default()
    };
    let loads = LoadWatcher::start(membership.view(), channels.clone(), watched);
    if place.reports_hold {
        place.tasks.spawn(watch_for_orphans(loads.snapshots(), place.verdicts.clone()));
    }
    let placer = LeastLoad { handoff: HandoffPolicy::Always };
    let placer: Box<dyn Placer> = match place.bug {
        Some(Bug::EternalExclusion) => Box::new(Eternal::new(placer)),
        _ => Box::new(placer),
    };
    let life = Lifecycle::new();
    let (model, fingerprint) = (MODEL.to_owned(), None);
    let admission = AdmissionConfig::default();
    let config = DispatcherConfig { model, loads, fingerprint, placer, channels, admission };
    let dispatcher = Dispatcher::new(config, &Metrics::new(), life.clone());
    life.serve();
    clients.run(dispatcher).await;
}

/// Holds that no worker reports a block that nobody owns.
async fn watch_for_orphans(
    mut snapshots: watch::Receiver<Arc<ClusterSnapshot>>,
    verdicts: Verdicts,
) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        for view in &snapshot.workers {
            let orphans = view.load.as_ref().map_or(0, |load| load.orphan_blocks);
            if orphans > 0 {
                let worker = &view.info.address.worker;
                verdicts.violated(format!("{worker} has {orphans} blocks that nobody owns"));
            }
        }
    }
}

/// Runs a worker until it has to leave.
pub async fn worker(place: Place, spec: WorkerSpec) {
    let membership: Arc<dyn Membership> = place.membership();
    let security = place.security(spec.role.into(), &place.worker_id(&spec).0);
    let channels = Channels::over(Arc::new(place.wire.clone())).secured(&security);
    let sender = sender(&place, &spec, channels.clone());
    let grpc = place.listener().for_nodes(&security);
    let (config, wall) = (config(&place, &spec, security), place.wall);
    let (role, leave) = (spec.role, spec.leave.clone().cancelled_owned());
    let ground = Ground {
        grpc,
        channels,
        engine: Box::new(move |config| engine(&config.engine, &place, &spec)),
        clock: Box::new(move || wall),
    };
    let bound = BoundWorker::over(config, ground);
    let ran = match role {
        Role::Decode => decode_worker::run(bound, membership, None, drop, leave).await,
        Role::Prefill => prefill_worker::run(bound, membership, sender, drop, leave).await,
    };
    tracing::debug!(error = ran.err().map(|error: WorkerError| error.to_string()), "a worker left");
}

// === impl Place ===

impl Place {
    fn listener(&self) -> Listener {
        Listener::over(Box::new(self.wire.listen()), self.host.addr())
    }

    /// What the worker on it is called.
    fn worker_id(&self, spec: &WorkerSpec) -> WorkerId {
        WorkerId(format!("{}-{}", spec.role, self.host.0).into())
    }

    /// How the node of a role and name on it meets others.
    fn security(&self, role: NodeRole, id: &str) -> Security {
        if !self.is_locked {
            return Security::open();
        }
        let identity = Identity::new(NAMESPACE, role, id);
        Security::with_secret(SECRET, identity).expect("a secret that is long enough")
    }

    /// A handle to the members of the cluster.
    pub(crate) fn membership(&self) -> Arc<EtcdMembership> {
        let config = EtcdConfig {
            namespace: NAMESPACE.to_owned(),
            lease_ttl: Duration::from_secs(3),
            grace: Duration::from_secs(6),
            dial: Some(Arc::new(self.wire.clone())),
            ..EtcdConfig::new([ETCD.uri()])
        };
        Arc::new(EtcdMembership::connect(config).expect("settings that can work"))
    }
}

fn config(place: &Place, spec: &WorkerSpec, security: Security) -> WorkerConfig {
    let SocketAddr::V4(listen) = place.host.addr() else { panic!("an IPv4 network") };
    WorkerConfig {
        id: place.worker_id(spec),
        role: spec.role,
        namespace: NAMESPACE.to_owned(),
        connections: ConnectionLimits::default(),
        model: MODEL.to_owned(),
        engine: EngineConfig {
            model_dir: PathBuf::new(),
            model: ModelOptions {
                kv_blocks: Some(BLOCKS),
                block_tokens: BLOCK_TOKENS,
                ..ModelOptions::default()
            },
            batch_tokens_max: 32,
            sequences_max: SEQUENCES_MAX,
            queue_max: 16,
            context_tokens_max: None,
            prefix_cache: true,
        },
        listen: listen.into(),
        admin: None,
        advertise_host: None,
        report_interval: REPORTS,
        drain_deadline: Duration::from_secs(2),
        deadline_max: Duration::from_secs(3600),
        security,
        admin_certificates: None,
        insecure: false,
        credit_queue_max: 32,
    }
}

/// The sending side of hand-offs, with the faults that are wanted on the way.
fn sender(place: &Place, spec: &WorkerSpec, channels: Channels) -> Sender {
    let dial = move |target: &Target, lane: usize| {
        let address = Address {
            worker: target.worker.as_str().into(),
            incarnation: Incarnation(target.incarnation),
            uri: target.uri.clone(),
        };
        Ok(channels.bulk(&address, Role::Decode, lane as u8))
    };
    let grpc = GrpcTransport::with_dial(LANES, Arc::new(dial)).with_lane_bytes(512);
    let mut transport: Arc<dyn Transport> =
        Arc::new(Faulty::new(Arc::new(grpc), spec.faults.clone()));
    if let Some(bug @ (Bug::LostCommit | Bug::AcceptedCorruptPage)) = place.bug {
        transport = Arc::new(Bugged::new(transport, bug));
    }
    let config = SenderConfig { message_bytes: MESSAGE_BYTES, ..SenderConfig::default() };
    Sender::new(Transports::new(vec![transport]), config)
}

/// An engine over the script, driven by a task.
fn engine(
    config: &EngineConfig,
    place: &Place,
    spec: &WorkerSpec,
) -> Result<EngineHandle, engine::EngineError> {
    let layout = script::layout();
    let memory = Memory::new(
        (layout.clone(), BLOCKS),
        place.seed,
        place.tasks.clone(),
        place.verdicts.clone(),
        place.bug,
    );
    let region: Arc<dyn KvRegion> = Arc::new(memory.clone());
    // Whoever lies about its weights says that they are the first.
    let told = if place.bug == Some(Bug::UnpinnedFingerprint) { 1 } else { spec.weights };
    let info = EngineInfo {
        fingerprint: format!("{told:032x}"),
        layout,
        vocab_size: script::VOCAB,
        context_tokens_max: BLOCKS * BLOCK_TOKENS,
        total_blocks: BLOCKS,
        block_tokens: BLOCK_TOKENS,
        eos_token_ids: vec![script::EOS],
        queue_max: config.queue_max,
        sequences_max: config.sequences_max,
        prefix_cache: config.prefix_cache,
    };
    let model = Script::new(spec.weights, memory.clone());
    let (handle, engine) = DrivenEngine::new(model, info, region, config)?;
    memory.belongs_to(handle.pool());
    *spec.pool.lock() = Some(handle.pool().clone());
    place.tasks.spawn(drive(engine, memory));
    Ok(handle)
}

async fn drive(mut engine: DrivenEngine<Script>, memory: Memory) {
    loop {
        match engine.turn() {
            Turn::Moved => {
                let took = STEP + STEP_PER_TOKEN * memory.step_tokens() as u32;
                tokio::time::sleep(took).await;
            }
            Turn::Stalled => tokio::time::sleep(STALLED).await,
            Turn::Idle => engine.arrived().await,
            Turn::Over => return,
        }
    }
}
