//! `baton router`, and the router inside `baton up`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cluster::load::LoadConfig;
use cluster::rpc::Channels;
use cluster::security::{Keeper, NodeRole, Security};
use cluster::telemetry::{AdminServer, Metrics};
use cluster::{
    ClusterError, EtcdMembership, HttpServer, Lifecycle, LoadWatcher, Membership, Prefixes,
};
use router::RouterConfig;
use router::dispatch::{Dispatcher, DispatcherConfig};
use scheduler::{HandoffPolicy, LeastLoad};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::begin::Begun;
use crate::cli::RouterArgs;
use crate::model::LocalModel;
use crate::ports::Ports;
use crate::settings::{Endpoints, Lock, Port, Settings, Written};

/// How long a router's last bytes may take once its streams have ended.
const STOP_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

/// Below this, connections are few enough for a word in the log.
const CONNECTIONS_FEW: usize = 512;

/// Routers have no names: a certificate for any of them will do.
const ANY_ROUTER: &str = "*";

/// What to do where another program has the usual port of the gRPC service, and nobody has named one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsualPort {
    /// Fail: clients of a cluster know the port.
    Wanted,
    /// Take a free one: who tries a second cluster on one machine talks HTTP to it.
    Likely,
}

/// A router whose ports are bound.
pub(crate) struct BoundRouter {
    config: RouterConfig,
    model: LocalModel,
    security: Security,
    http: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
}

/// Runs the command.
///
/// # Errors
/// If a setting is wrong, a port is taken, or the model's tokenizer can't be loaded.
pub(crate) async fn run(args: RouterArgs) -> Result<()> {
    let settings = Written::merge(args.node.config.as_deref(), &args.written())?.validate()?;
    let begun = Begun::new(&settings, &settings.telemetry("baton-router", "router")?)?;
    let ran = serve(&settings, &begun, args.node.ports_file.as_deref()).await;
    begun.telemetry.shutdown().await;
    ran
}

async fn serve(settings: &Settings, begun: &Begun, ports_file: Option<&Path>) -> Result<()> {
    let Some(model) = begun.model(settings).await? else { return Ok(()) };
    let security = settings.security(NodeRole::Router, ANY_ROUTER)?;
    let binding = BoundRouter::bind(settings, model, security, UsualPort::Wanted);
    let Some(bound) = begun.unless_leaving(binding).await? else { return Ok(()) };
    let bound = bound.obeying_hangups(begun.hangups.clone());
    bound.ports().announce(ports_file)?;
    let membership = EtcdMembership::connect(settings.etcd()?)?;
    let policy = settings.handoff(HandoffPolicy::Auto)?;
    let leave = begun.leave.clone().cancelled_owned();
    let ran = bound.run(settings, &membership, policy, leave).await;
    membership.close().await;
    ran
}

// === impl BoundRouter ===

impl BoundRouter {
    /// Loads the tokenizer and binds the ports.
    ///
    /// # Errors
    /// If either fails.
    pub(crate) async fn bind(
        settings: &Settings,
        model: LocalModel,
        security: Security,
        usual: UsualPort,
    ) -> Result<Self> {
        let endpoints = settings.endpoints()?;
        let port = |flag, addr, lock| Port { flag, addr, lock };
        let ports = [
            port("--http", endpoints.http, Lock::Keys),
            port("--grpc", endpoints.grpc, Lock::Keys),
            port("--admin", endpoints.admin, Lock::Cluster),
        ];
        settings.check_ports(&ports, security.is_locked())?;
        let operators = settings.admin_certificates(&security)?;
        let certificates = settings.gateway_certificates()?;
        let (loading, of) = (settings.clone(), model.clone());
        let gateway = tokio::task::spawn_blocking(move || loading.gateway(&of)).await??;
        let http_listener = HttpServer::bind(endpoints.http).context("--http")?;
        let grpc_listener = bind_grpc(&endpoints, usual).context("--grpc")?;
        let admin_server = AdminServer::bind(endpoints.admin).await.context("--admin")?;
        let admin_server = admin_server.showing(operators.as_ref());
        let (http, grpc) = (http_listener.local_addr()?, grpc_listener.local_addr()?);
        let admin = admin_server.local_addr();
        let open_max = gateway.limits.connections.open_max;
        if open_max < CONNECTIONS_FEW {
            tracing::warn!(
                connections_max = open_max,
                "few connections are possible: raise `ulimit -n` to serve more clients at a time"
            );
        }
        let config = RouterConfig {
            http: http_listener,
            grpc: Some(grpc_listener),
            admin: Some(admin_server),
            certificates,
            hangups: None,
            gateway,
        };
        Ok(Self { config, model, security, http, grpc, admin })
    }

    /// Where it listens.
    pub(crate) fn ports(&self) -> Ports {
        Ports {
            http: Some(self.http),
            grpc: Some(self.grpc),
            admin: Some(self.admin),
            ..Ports::default()
        }
    }

    /// Whether the model has a chat template.
    pub(crate) fn chats(&self) -> bool {
        self.config.gateway.models.all().iter().any(|model| model.template.is_some())
    }

    /// Takes SIGHUPs for the wish to have the API keys read again.
    pub(crate) fn obeying_hangups(mut self, hangups: watch::Receiver<u64>) -> Self {
        self.config.hangups = Some(hangups);
        self
    }

    /// Tells clients which workers served them, or not.
    pub(crate) fn with_debug_headers(mut self, debug_headers: bool) -> Self {
        self.config.gateway.debug_headers = debug_headers;
        self
    }

    /// Serves until `leave` resolves and the running streams have ended.
    ///
    /// # Errors
    /// If a server breaks off.
    pub(crate) async fn run(
        self,
        settings: &Settings,
        membership: &dyn Membership,
        handoff: HandoffPolicy,
        leave: impl Future<Output = ()>,
    ) -> Result<()> {
        let (life, metrics) = (Lifecycle::new(), Metrics::new());
        let channels = Channels::new().secured(&self.security);
        self.keep(&life, &metrics);
        let namespace = settings.etcd()?.namespace;
        let prefixes = settings.prefix_index_bytes().map(Prefixes::new);
        let prefixes = prefixes.map(|prefixes| prefixes.with_anchors(membership.anchors()));
        prefixes.iter().for_each(|prefixes| prefixes.register(&metrics));
        let watched = LoadConfig { namespace, prefixes, ..LoadConfig::default() };
        let loads = LoadWatcher::start(membership.view(), channels.clone(), watched);
        let admission = settings.admission()?;
        let placer = Box::new(LeastLoad { handoff, targets: admission.targets });
        let (model, fingerprint) = (self.model.name, settings.fingerprint());
        let config = DispatcherConfig { model, loads, fingerprint, placer, channels, admission };
        let dispatcher = Arc::new(Dispatcher::new(config, &metrics, life.clone()));
        life.serve();
        let serving = router::serve(self.config, dispatcher, metrics, life.clone());
        tokio::pin!(serving);
        tokio::select! {
            served = &mut serving => return Ok(served?),
            () = leave => {}
        }
        let leaving = async {
            life.drain(settings.drain_deadline()).await;
            life.stop(STOP_DEADLINE).await;
        };
        let (served, ()) = tokio::join!(serving, leaving);
        Ok(served?)
    }

    /// Keeps its certificates fresh, for as long as it lives.
    fn keep(&self, life: &Lifecycle, metrics: &Metrics) {
        let keeper = Keeper::default()
            .with("node", self.security.certificates())
            .with("gateway", self.config.certificates.as_ref());
        keeper.register(metrics);
        cluster::security::register_lock(metrics, self.config.gateway.insecure);
        let stopped = life.stopped().clone();
        life.tasks().spawn(async move { stopped.run_until_cancelled(keeper.run()).await });
    }
}

fn bind_grpc(endpoints: &Endpoints, usual: UsualPort) -> Result<TcpListener> {
    let bound = HttpServer::bind(endpoints.grpc);
    if endpoints.grpc_is_named || usual == UsualPort::Wanted || !is_taken(&bound) {
        return Ok(bound?);
    }
    let (mut free, taken) = (endpoints.grpc, endpoints.grpc);
    free.set_port(0);
    let bound = HttpServer::bind(free)?;
    let addr = bound.local_addr()?;
    tracing::warn!(%taken, %addr, "another program has the usual port of gRPC: taking a free one; --grpc names it");
    Ok(bound)
}

fn is_taken<T>(bound: &Result<T, ClusterError>) -> bool {
    let taken = io::ErrorKind::AddrInUse;
    matches!(bound, Err(ClusterError::Bind { source, .. }) if source.kind() == taken)
}
