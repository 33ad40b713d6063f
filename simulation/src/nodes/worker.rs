//! Workers, put together as the command does, over a script in the engine's place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::Membership;
use cluster::connections::ConnectionLimits;
use cluster::rpc::Channels;
use cluster::security::Security;
use engine::{DrivenEngine, EngineConfig, EngineHandle, EngineInfo, ModelOptions, Turn};
use kv_cache::{BlockPool, KvRegion};
use kv_transfer::transport::{FaultCounts, Faults, Faulty, GrpcTransport};
use kv_transfer::{Sender, SenderConfig, Target, Transport, Transports};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use words::{Address, Incarnation, Role, WorkerId};
use worker::node::{BoundWorker, Ground};
use worker::{WorkerConfig, WorkerError};

use super::memory::Memory;
use super::script::{self, BLOCK_TOKENS, Script};
use super::{MODEL, NAMESPACE, Place, REPORTS};
use crate::planted::{Bug, Bugged};

/// KV blocks of a worker: enough for some requests at a time, and few enough to run out.
const BLOCKS: u32 = 48;
const SEQUENCES_MAX: u32 = 6;
/// A step takes this long, and a bit for each token.
const STEP: Duration = Duration::from_millis(3);
const STEP_PER_TOKEN: Duration = Duration::from_micros(200);
/// How often an engine that can't move looks again.
const STALLED: Duration = Duration::from_millis(1);
/// Few pages a message, so that a hand-off takes several.
const MESSAGE_BYTES: usize = 256;
const LANES: usize = 2;

/// A worker to be.
#[derive(Clone)]
pub struct WorkerSpec {
    /// Which phase it is named for.
    pub role: Role,
    /// Which model it has.
    pub weights: u64,
    /// What is said to go wrong with what it sends.
    pub faults: Faults,
    /// How often it did.
    pub struck: Arc<FaultCounts>,
    /// Told of its blocks once it has some.
    pub pool: Arc<Mutex<Option<BlockPool>>>,
    /// Told when it has to leave.
    pub leave: CancellationToken,
}

/// Runs a worker until it has to leave.
pub async fn worker(place: Place, spec: WorkerSpec) {
    let membership: Arc<dyn Membership> = place.membership();
    let security = place.security(spec.role.into(), &spec.id(&place).0);
    let channels = Channels::over(Arc::new(place.wire.clone())).secured(&security);
    let sender = sender(&place, &spec, channels.clone());
    let grpc = place.listener().for_nodes(&security);
    let (config, wall) = (config(&place, &spec, security), place.wall);
    let (role, left, shown) = (spec.role, spec.leave.clone(), place.clone());
    let ground = Ground {
        grpc,
        channels,
        engine: Box::new(move |config| engine(&config.engine, &place, &spec)),
        clock: Box::new(move || wall),
    };
    let bound = BoundWorker::over(config, ground);
    shown.shows(&bound.metrics());
    let leave = left.clone().cancelled_owned();
    let ran = match role {
        Role::Decode => decode_worker::run(bound, membership, None, drop, leave).await,
        Role::Prefill => prefill_worker::run(bound, membership, sender, drop, leave).await,
    };
    if ran.is_ok() && left.is_cancelled() {
        shown.coverage.reached("worker drained");
    }
    tracing::debug!(error = ran.err().map(|error: WorkerError| error.to_string()), "a worker left");
}

// === impl WorkerSpec ===

impl WorkerSpec {
    /// What the worker is called.
    fn id(&self, place: &Place) -> WorkerId {
        WorkerId(format!("{}-{}", self.role, place.host.0).into())
    }
}

fn config(place: &Place, spec: &WorkerSpec, security: Security) -> WorkerConfig {
    let SocketAddr::V4(listen) = place.host.addr() else { panic!("an IPv4 network") };
    WorkerConfig {
        id: spec.id(place),
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
            targets: words::Targets::default(),
            tiers: engine::TierOptions::default(),
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
        Arc::new(Faulty::new(Arc::new(grpc), spec.faults.clone()).counting(spec.struck.clone()));
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
    let model = Script::new(spec.weights, memory.clone(), place.bug);
    let (handle, engine) = DrivenEngine::new(model, info, region, config)?;
    memory.belongs_to(handle.pool());
    *spec.pool.lock() = Some(handle.pool().clone());
    place.tasks.spawn(drive(engine, memory, place.bug));
    Ok(handle)
}

async fn drive(mut engine: DrivenEngine<Script>, memory: Memory, bug: Option<Bug>) {
    loop {
        match engine.turn() {
            Turn::Moved if bug == Some(Bug::EndlessTurn) => spin().await,
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

/// Has always something to do, and never comes to the end of it.
async fn spin() {
    loop {
        tokio::task::yield_now().await;
    }
}
