//! A worker's life: bind, load, serve, publish, drain, leave.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use cluster::clock;
use cluster::connections::Connections;
use cluster::membership::anchors::TOLD_MAX;
use cluster::node::Permit;
use cluster::rpc::{Channels, Listener, Server};
use cluster::security::Keeper;
use cluster::telemetry::{AdminServer, Metrics, Probes};
use cluster::{Lifecycle, Membership, Registration, ReportService, Standing};
use engine::{Engine, EngineError, EngineHandle, LoadProgress};
use kv_cache::BlockId;
use tonic::service::Routes;
use tracing::info;
use words::{Address, Capacity, Fingerprint, HandoffTotals, Incarnation, NodeState, WorkerInfo};

use crate::findable::Findable;
use crate::metrics::WorkerCollector;
use crate::report::LoadProbe;
use crate::{Entrance, Integrity, Peers, WorkerConfig, WorkerError};

/// How long the node's own tasks have to end once it is gone.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How often the node looks whether its engine's thread still works.
const ENGINE_LOOK: Duration = Duration::from_millis(500);
/// How often the node looks which prefixes are hot: a millisecond's work in a large cache.
const HOT_LOOK: Duration = Duration::from_secs(2);

/// KV blocks and requests that a worker holds outside of its engine.
pub trait KvHoldings: Send + Sync + 'static {
    /// Blocks of open hand-offs.
    fn held_blocks(&self) -> Vec<BlockId>;
    /// Requests that wait, neither in the engine nor at the node's entrance.
    fn waiting(&self) -> u32;
    /// Prompt tokens of those, as far as this worker computes them.
    fn waiting_prefill_tokens(&self) -> u64;
    /// Hand-offs that it sent.
    fn handoffs(&self) -> HandoffTotals;
}

/// What a worker's own services are built from. A clone is another handle to the same node.
#[derive(Clone)]
pub struct Node {
    /// The settings it was started with.
    pub config: Arc<WorkerConfig>,
    /// The engine.
    pub engine: EngineHandle,
    /// Who and where this worker is.
    pub address: Address,
    /// What its peers must match.
    pub fingerprint: Fingerprint,
    /// The way in for requests that generate here.
    pub entrance: Entrance,
    /// Connections to other workers.
    pub channels: Channels,
    /// Whom it may connect to.
    pub peers: Peers,
    /// Its life.
    pub life: Lifecycle,
    /// Opens what comes to it.
    pub integrity: Integrity,
    /// Whether routers can find it.
    findable: Findable,
}

/// What a role adds to a node.
pub struct NodeServices {
    /// Its gRPC services.
    pub routes: Routes,
    /// What it holds outside of the engine.
    pub holdings: Arc<dyn KvHoldings>,
    /// Transports it can receive by, best first.
    pub transports: Vec<String>,
}

/// Starts a worker's engine.
pub type EngineStart = Box<dyn FnOnce(&WorkerConfig) -> Result<EngineHandle, EngineError> + Send>;

/// What a worker stands on, where it isn't this machine: the network, the engine and the clock of a
/// simulation.
pub struct Ground {
    /// Where its calls come in.
    pub grpc: Listener,
    /// Connections to other nodes.
    pub channels: Channels,
    /// Starts the engine, at once.
    pub engine: EngineStart,
    /// What its clock says.
    pub clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

/// A worker whose ports are bound and whose model is not loaded yet.
pub struct BoundWorker {
    config: Arc<WorkerConfig>,
    grpc: Listener,
    admin: Option<AdminServer>,
    metrics: Metrics,
    life: Lifecycle,
    channels: Channels,
    /// `None` for the configured model's, on the configured device.
    engine: Option<EngineStart>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

// === impl BoundWorker ===

impl BoundWorker {
    /// Binds a worker's ports, so that they are known before the model is loaded.
    ///
    /// # Errors
    /// [`WorkerError::Node`] if a port is taken.
    pub async fn bind(config: WorkerConfig) -> Result<Self, WorkerError> {
        let grpc = Listener::bind(config.listen).await?.for_nodes(&config.security);
        let admin = match config.admin {
            Some(addr) => {
                Some(AdminServer::bind(addr).await?.showing(config.admin_certificates.as_ref()))
            }
            None => None,
        };
        let channels = Channels::new().secured(&config.security);
        Ok(Self {
            config: Arc::new(config),
            grpc,
            admin,
            metrics: Metrics::new(),
            life: Lifecycle::new(),
            channels,
            engine: None,
            clock: Box::new(SystemTime::now),
        })
    }

    /// A worker on other ground than this machine.
    #[must_use]
    pub fn over(config: WorkerConfig, ground: Ground) -> Self {
        let Ground { grpc, channels, engine, clock } = ground;
        let (config, life) = (Arc::new(config), Lifecycle::new());
        let engine = Some(engine);
        Self { config, grpc, admin: None, metrics: Metrics::new(), life, channels, engine, clock }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &WorkerConfig {
        &self.config
    }

    /// Where the gRPC server is bound.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// Where health and metrics are bound.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::local_addr)
    }

    /// The worker's metrics, for whoever scrapes several nodes of one process.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The connections to other workers.
    #[must_use]
    pub fn channels(&self) -> Channels {
        self.channels.clone()
    }

    /// The worker's life: draining it makes [`BoundWorker::run`] end.
    #[must_use]
    pub fn life(&self) -> Lifecycle {
        self.life.clone()
    }

    /// Loads the model, then serves until `leave` resolves and the work is done.
    ///
    /// - `progress`: told of the loading, on a blocking thread.
    /// - `services`: makes the role's services once the engine runs.
    ///
    /// # Errors
    /// [`WorkerError`] if the model can't be loaded, a server fails, or a newer life of this worker
    /// is registered.
    pub async fn run(
        self,
        membership: Arc<dyn Membership>,
        progress: impl FnMut(LoadProgress) + Send + 'static,
        services: impl FnOnce(&Node, &Metrics) -> NodeServices,
        leave: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let Self { config, grpc, admin, metrics, life, channels, engine, clock } = self;
        tokio::pin!(leave);
        let loaded: Arc<OnceLock<EngineHandle>> = Arc::default();
        let findable = Findable::default();
        if let Some(admin) = admin {
            let (engine, found) = (loaded.clone(), findable.clone());
            let probes = Probes::new(&life)
                .insecure(config.is_insecure())
                .alive("engine", move || match engine.get() {
                    Some(engine) if !engine.is_healthy() => Err("its thread has ended".into()),
                    _ => Ok(()),
                })
                .ready("routers", move || found.check(cluster::clock::now()));
            let metrics = metrics.clone();
            life.tasks().spawn(admin.serve(probes, metrics));
        }
        let engine = match engine {
            Some(start) => start(&config).map_err(|error| model(&error))?,
            None => tokio::select! {
                loaded = load(&config, progress) => loaded?,
                () = &mut leave => {
                    // Nobody knows of it yet. The loading ends with the process.
                    info!("leaving before the model is loaded");
                    life.stop(STOP_DEADLINE).await;
                    return Ok(());
                }
            },
        };
        let engine = loaded.get_or_init(|| engine).clone();
        let address = address(&config, &grpc, clock());
        let peers = Peers::new(membership.view(), config.security.is_locked());
        let watched = (findable, Integrity::new(&metrics));
        let node = Node::new(config, engine, address, (channels, peers), life, watched);
        node.keep(membership.as_ref(), &metrics);
        let services = services(&node, &metrics);
        node.serve(grpc, services, &metrics, membership, leave).await
    }
}

// === impl Node ===

impl Node {
    fn new(
        config: Arc<WorkerConfig>,
        engine: EngineHandle,
        address: Address,
        (channels, peers): (Channels, Peers),
        life: Lifecycle,
        (findable, integrity): (Findable, Integrity),
    ) -> Self {
        let fingerprint = fingerprint(&config.model, &engine);
        let entrance = Entrance::for_sequences(engine.clone(), config.credit_queue_max);
        Self {
            config,
            engine,
            address,
            fingerprint,
            entrance,
            channels,
            peers,
            life,
            integrity,
            findable,
        }
    }

    /// Lets a call in.
    ///
    /// # Errors
    /// [`WorkerError::StaleIncarnation`] if it was meant for another life of this worker,
    /// [`WorkerError::Unavailable`] while the worker starts or drains.
    pub fn admit(&self, incarnation: u64) -> Result<Permit, WorkerError> {
        let ours = self.address.incarnation;
        if Incarnation(incarnation) != ours {
            return Err(WorkerError::StaleIncarnation { ours: ours.0, theirs: incarnation });
        }
        Ok(self.life.gate().enter()?)
    }

    /// What a caller says of its deadline, as far as it is believed.
    #[must_use]
    pub fn capped_ms(&self, deadline_ms: u64) -> u64 {
        let longest = self.config.deadline_max.as_millis();
        deadline_ms.min(u64::try_from(longest).unwrap_or(u64::MAX))
    }

    /// Keeps what belongs to the node and to none of its calls: its certificates fresh, and no
    /// connection to anybody who is no member.
    fn keep(&self, membership: &dyn Membership, metrics: &Metrics) {
        let (config, channels) = (&self.config, self.channels.clone());
        let keeper = Keeper::default()
            .with("node", config.security.certificates())
            .with("admin", config.admin_certificates.as_ref());
        keeper.register(metrics);
        cluster::security::register_lock(metrics, config.is_insecure());
        let held = metrics.gauge("baton_rpc_channels", "Connections kept to other workers");
        metrics.before_scrape({
            let channels = channels.clone();
            move || {
                held.set(i64::try_from(channels.len()).unwrap_or(i64::MAX));
            }
        });
        let (stopped, view) = (self.life.stopped().clone(), membership.view());
        self.life.tasks().spawn(async move {
            let kept = async { tokio::join!(keeper.run(), channels.follow(view)) };
            stopped.run_until_cancelled(kept).await;
        });
    }

    fn info(&self, transports: Vec<String>) -> WorkerInfo {
        let engine = self.engine.info();
        WorkerInfo {
            address: self.address.clone(),
            role: self.config.role,
            state: NodeState::Serving,
            fingerprint: self.fingerprint.clone(),
            capacity: Capacity {
                kv_blocks: engine.total_blocks,
                block_tokens: engine.block_tokens,
                sequences_max: engine.sequences_max,
                queue_max: engine.queue_max,
                context_tokens_max: engine.context_tokens_max,
            },
            transports,
        }
    }

    async fn serve(
        self,
        grpc: Listener,
        services: NodeServices,
        metrics: &Metrics,
        membership: Arc<dyn Membership>,
        leave: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        let NodeServices { routes, holdings, transports } = services;
        let probe = LoadProbe::new(self.engine.clone(), holdings, self.entrance.clone());
        let seat = self.config.engine.model.cuda.as_ref().and_then(|cuda| cuda.partition.clone());
        let collector = WorkerCollector::new(self.engine.clone(), probe.clone(), seat);
        metrics.with_registry(|registry| registry.register_collector(Box::new(collector)));
        let every = self.config.report_interval;
        let info = self.info(transports);
        let namespace = &self.config.namespace;
        let report =
            ReportService::start(namespace, &info, move || probe.sample(), every, &self.life)
                .with_kv(self.engine.pool().clone());
        self.findable.by_streams(report.followers());
        let connections = Connections::new(self.config.connections.clone());
        let server = Server::new(grpc, &self.life).with_connections(connections);
        let serving = server.serve(routes.add_service(report.into_server()));
        let living = self.live(membership, info, leave);
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return Ok(served?),
            lived = living => lived?,
        }
        Ok(serving.await?)
    }

    /// Publishes the worker, waits until it has to leave, and leaves in order.
    async fn live(
        &self,
        membership: Arc<dyn Membership>,
        info: WorkerInfo,
        leave: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        tokio::pin!(leave);
        self.life.serve();
        // An owner who leaves does not wait for an etcd that is away.
        let registration = tokio::select! {
            registered = membership.register(info) => Some(registered?),
            () = &mut leave => None,
        };
        let reason = match &registration {
            Some(registration) => self.work(registration, leave).await,
            None => Ok(()),
        };
        if let Some(registration) = &registration {
            registration.update(NodeState::Draining);
        }
        self.life.drain(self.config.drain_deadline).await;
        if let Some(registration) = registration {
            registration.deregister().await;
        }
        self.engine.shutdown(clock::now() + STOP_DEADLINE).await;
        self.life.stop(STOP_DEADLINE).await;
        reason
    }

    /// Is there for others, until `leave` or until it can't be any more.
    async fn work(
        &self,
        registration: &Registration,
        leave: impl Future<Output = ()>,
    ) -> Result<(), WorkerError> {
        self.findable.by_registration(registration.standing());
        tokio::select! {
            () = leave => Ok(()),
            by = superseded(registration) => Err(WorkerError::Superseded(by.0)),
            () = self.engine_death() => Err(WorkerError::Engine("its thread has ended".into())),
            () = self.tell_hot(registration) => Ok(()),
        }
    }

    /// Tells of the prefixes that are found again and again, for routers that start cold. Doesn't end.
    async fn tell_hot(&self, registration: &Registration) {
        let mut look = tokio::time::interval(HOT_LOOK);
        loop {
            look.tick().await;
            registration.tell(self.engine.pool().hot_anchors(TOLD_MAX));
        }
    }

    /// Resolves when the engine's thread has broken down, which only a restart mends.
    async fn engine_death(&self) {
        let mut look = tokio::time::interval(ENGINE_LOOK);
        while self.engine.is_healthy() {
            look.tick().await;
        }
    }
}

/// Where a worker that starts `now` can be found.
fn address(config: &WorkerConfig, grpc: &Listener, now: SystemTime) -> Address {
    let host = config.advertise_host.clone().unwrap_or_else(|| config.listen.ip().to_string());
    Address {
        worker: config.id.clone(),
        incarnation: cluster::node::incarnation(now),
        uri: grpc.uri(&host),
    }
}

async fn superseded(registration: &Registration) -> Incarnation {
    let mut standing = registration.standing();
    loop {
        if let Standing::Superseded(by) = *standing.borrow_and_update() {
            return by;
        }
        if standing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn load(
    config: &Arc<WorkerConfig>,
    mut progress: impl FnMut(LoadProgress) + Send + 'static,
) -> Result<EngineHandle, WorkerError> {
    let config = config.clone();
    let load = move || Engine::start(&config.engine, &mut progress);
    tokio::task::spawn_blocking(load)
        .await
        .map_err(|panic| WorkerError::Engine(format!("loading the model: {panic}")))?
        .map_err(|error| model(&error))
}

fn model(error: &EngineError) -> WorkerError {
    WorkerError::Model(error.to_string())
}

fn fingerprint(model: &str, engine: &EngineHandle) -> Fingerprint {
    let info = engine.info();
    Fingerprint {
        model: model.to_owned(),
        weights: info.fingerprint.clone(),
        kv_layout: info.layout.clone(),
        hash_version: kv_cache::HASH_VERSION,
        wire_version: proto::WIRE_VERSION,
    }
}
