//! A cluster of processes: etcd, a router, prefill workers, decode workers.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::grpc::Grpc;
use crate::client::http::Client;
use crate::etcd::{Etcd, free_port};
use crate::model::TestModel;
use crate::node::{Node, NodeSpec};
use crate::security::{Keyring, Lock};
use crate::wait::wait_until;
use crate::watch::metrics::Metrics;

/// How long a cluster may take to come to rest after its last request.
const REST_PATIENCE: Duration = Duration::from_secs(15);
/// How long a cluster waits for its turn: longer than any test runs.
const TURN_PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    prefill_workers: usize,
    decode_workers: usize,
    lease_ttl_s: u32,
    lock: Lock,
    worker_args: Vec<String>,
    router_args: Vec<String>,
    router_descriptors_max: Option<u32>,
    stable_ports: bool,
}

/// A running cluster. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    /// The router.
    pub router: Node,
    /// `p0`, `p1`, ...
    pub prefill: Vec<Node>,
    /// `d0`, `d1`, ...
    pub decode: Vec<Node>,
    /// Its memory.
    pub etcd: Etcd,
    /// The model that all of it serves.
    pub model: TestModel,
    /// What keeps strangers out of it.
    pub keyring: Keyring,
    router_spec: NodeSpec,
    builder: ClusterBuilder,
    // Last: dropped after the processes that use it.
    folder: Folder,
}

/// A whole cluster in one process: `baton up`.
#[derive(Debug)]
pub struct Single {
    /// The process.
    pub node: Node,
    /// The model it serves.
    pub model: TestModel,
    _folder: Folder,
}

/// A fresh folder, and the machine for oneself. Kept if the test fails.
#[derive(Debug)]
pub struct Folder {
    dir: Option<TempDir>,
    _alone: File,
}

// === impl ClusterBuilder ===

impl ClusterBuilder {
    /// So many prefill workers.
    #[must_use]
    pub fn prefill(mut self, workers: usize) -> Self {
        self.prefill_workers = workers;
        self
    }

    /// So many decode workers.
    #[must_use]
    pub fn decode(mut self, workers: usize) -> Self {
        self.decode_workers = workers;
        self
    }

    /// Seconds for which etcd keeps a worker that stopped answering.
    #[must_use]
    pub fn lease_ttl_s(mut self, seconds: u32) -> Self {
        self.lease_ttl_s = seconds;
        self
    }

    /// What keeps strangers out.
    #[must_use]
    pub fn lock(mut self, lock: Lock) -> Self {
        self.lock = lock;
        self
    }

    /// More options for every worker.
    #[must_use]
    pub fn worker_args(mut self, args: &[&str]) -> Self {
        self.worker_args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Workers come back at the port they had, as behind stable names.
    #[must_use]
    pub fn stable_ports(mut self) -> Self {
        self.stable_ports = true;
        self
    }

    /// More options for the router.
    #[must_use]
    pub fn router_args(mut self, args: &[&str]) -> Self {
        self.router_args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// What `ulimit -n` says to the router.
    #[must_use]
    pub fn router_descriptors_max(mut self, most: u32) -> Self {
        self.router_descriptors_max = Some(most);
        self
    }

    /// Starts it all and waits until it takes requests and every worker is known to the router.
    ///
    /// # Panics
    /// If anything does not come up.
    pub async fn start(self) -> Cluster {
        let folder = Folder::new().await;
        let model = TestModel::demo_or_random(folder.path());
        let etcd = Etcd::start(folder.path()).await;
        let keyring = Keyring::new(self.lock, folder.path());

        let specs = |role: &str, count: usize| -> Vec<NodeSpec> {
            let name = |index| format!("{}{index}", &role[..1]);
            (0..count)
                .map(|index| {
                    self.worker_spec(role, &name(index), &etcd, &model, &keyring, folder.path())
                })
                .collect()
        };
        // All processes first, so that they load at the same time.
        let mut prefill = start_all(specs("prefill-worker", self.prefill_workers)).await;
        let mut decode = start_all(specs("decode-worker", self.decode_workers)).await;
        let router_spec = self.router_spec(&etcd, &model, &keyring, folder.path());
        let mut router = Node::start(router_spec.clone()).await;
        for node in prefill.iter_mut().chain(&mut decode) {
            node.ready().await;
        }
        router.ready().await;

        let (prefill_workers, decode_workers) = (self.prefill_workers, self.decode_workers);
        let builder = self;
        let cluster =
            Cluster { router, prefill, decode, etcd, model, keyring, router_spec, builder, folder };
        cluster.sees_workers(prefill_workers, decode_workers).await;
        cluster
    }

    fn worker_spec(
        &self,
        role: &str,
        name: &str,
        etcd: &Etcd,
        model: &TestModel,
        keyring: &Keyring,
        folder: &Path,
    ) -> NodeSpec {
        let mut args = vec![role.to_owned(), "--id".to_owned(), name.to_owned()];
        let port = if self.stable_ports { free_port() } else { 0 };
        args.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
        args.extend(["--admin", "127.0.0.1:0"].map(str::to_owned));
        // Several engines share the machine's cores.
        args.extend(["--threads", "1"].map(str::to_owned));
        args.extend(self.shared_args(etcd, model));
        let kind = role.trim_end_matches("-worker");
        if keyring.lock() == Lock::Certificates {
            keyring.issue(kind, name, 2);
        }
        args.extend(keyring.flags(kind, name));
        args.extend(self.worker_args.iter().cloned());
        NodeSpec::new(name, folder, args)
    }

    fn router_spec(
        &self,
        etcd: &Etcd,
        model: &TestModel,
        keyring: &Keyring,
        folder: &Path,
    ) -> NodeSpec {
        let mut args = vec!["router".to_owned()];
        args.extend(["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"].map(str::to_owned));
        args.extend(self.shared_args(etcd, model));
        args.push("--debug-headers".into());
        if keyring.lock() == Lock::Certificates {
            keyring.issue("router", "r0", 2);
            // Tests' clients speak plain HTTP; what is under test lies behind.
            args.extend(["--gateway-tls", "false"].map(str::to_owned));
        }
        args.extend(keyring.flags("router", "r0"));
        args.extend(patient(&self.router_args));
        args.extend(self.router_args.iter().cloned());
        let descriptors_max = self.router_descriptors_max;
        NodeSpec { descriptors_max, ..NodeSpec::new("router", folder, args) }
    }

    fn shared_args(&self, etcd: &Etcd, model: &TestModel) -> Vec<String> {
        let mut args = vec!["--etcd".to_owned(), etcd.endpoint()];
        args.extend(["--namespace", "test", "--lease-ttl-s"].map(str::to_owned));
        args.push(self.lease_ttl_s.to_string());
        args.extend(model.args());
        args
    }
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            prefill_workers: 1,
            decode_workers: 1,
            lease_ttl_s: 5,
            lock: Lock::default(),
            worker_args: Vec::new(),
            router_args: Vec::new(),
            router_descriptors_max: None,
            stable_ports: false,
        }
    }
}

// === impl Cluster ===

impl Cluster {
    /// One prefill worker, one decode worker, unless told otherwise.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// An OpenAI client of the router.
    #[must_use]
    pub fn client(&self) -> Client {
        self.router.client()
    }

    /// A gRPC client of the router.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub async fn grpc(&self) -> Grpc {
        self.router.grpc().await
    }

    /// Starts one more router, which knows nothing but what etcd and the workers tell it.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn another_router(&self) -> Node {
        let spec = NodeSpec { name: "router-2".to_owned(), ..self.router_spec.clone() };
        let mut router = Node::start(spec).await;
        router.ready().await;
        router
    }

    /// Starts one more decode worker, of another model folder under the same name.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn another_decode(&self, name: &str, model: &TestModel) -> Node {
        let folder = self.folder.path();
        Node::start(self.builder.worker_spec(
            "decode-worker",
            name,
            &self.etcd,
            model,
            &self.keyring,
            folder,
        ))
        .await
    }

    /// All workers.
    pub fn workers(&self) -> impl Iterator<Item = &Node> {
        self.prefill.iter().chain(&self.decode)
    }

    /// Where logs and data are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until the router places work on this many workers of each kind.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn sees_workers(&self, prefill: usize, decode: usize) {
        sees_workers(&self.router, prefill, decode).await;
    }

    /// Waits until nothing is running and every block has been given back, then checks that none is
    /// orphaned, on every node that is still there.
    ///
    /// # Panics
    /// If the cluster does not come to rest, or a block has leaked.
    pub async fn assert_clean(&mut self) {
        for node in self.prefill.iter_mut().chain(&mut self.decode) {
            if node.process().exit_status().is_none() {
                assert_clean(node.name(), node.status_addr()).await;
            }
        }
    }
}

/// Waits until `router` places work on this many workers of each kind.
///
/// # Panics
/// If it does not in time.
pub async fn sees_workers(router: &Node, prefill: usize, decode: usize) {
    let what = format!("{} to see {prefill} prefill and {decode} decode workers", router.name());
    let wanted = json!({ "prefill": prefill, "decode": decode });
    wait_until(&what, REST_PATIENCE, || async {
        let (_, text) = Client::new(router.status_addr()).get("/ready").await;
        let ready: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if ready["workers"] == wanted { Ok(()) } else { Err(text) }
    })
    .await;
}

/// Waits until the worker `name` is at rest, then checks that it has no orphaned block.
///
/// # Panics
/// If it does not come to rest, or a block has leaked.
pub(crate) async fn assert_clean(name: &str, addr: SocketAddr) {
    wait_until(&format!("{name} to come to rest"), REST_PATIENCE, || async {
        let metrics = Metrics::scrape(name, addr).await;
        let blocks = |state| metrics.require("baton_kv_blocks", &[("state", state)]);
        let held = [
            ("active blocks", blocks("active")),
            ("reserved blocks", blocks("reserved")),
            ("running", metrics.require("baton_sequences_running", &[])),
            ("waiting", metrics.require("baton_sequences_waiting", &[])),
            ("orphans", metrics.require("baton_orphan_kv_blocks", &[])),
        ];
        if held.iter().all(|(_, count)| *count == 0.0) { Ok(()) } else { Err(format!("{held:?}")) }
    })
    .await;
}

/// Has requests wait rather than be refused, as late as their answers may be on a slow machine: unless
/// `args` say what is late.
fn patient(args: &[impl AsRef<str>]) -> Vec<String> {
    const TARGETS: [&str; 2] = ["--ttft-target-ms", "--tpot-target-ms"];
    let is_said = args.iter().any(|arg| TARGETS.contains(&arg.as_ref()));
    let long = TURN_PATIENCE.as_millis().to_string();
    let flags = TARGETS.into_iter().flat_map(|flag| [flag.to_owned(), long.clone()]);
    if is_said { Vec::new() } else { flags.collect() }
}

async fn start_all(specs: Vec<NodeSpec>) -> Vec<Node> {
    futures::future::join_all(specs.into_iter().map(Node::start)).await
}

// === impl Single ===

impl Single {
    /// Starts `baton up` with these options and waits until both its workers take work.
    ///
    /// # Panics
    /// If it does not.
    pub async fn start(args: &[&str]) -> Self {
        let folder = Folder::new().await;
        let model = TestModel::demo_or_random(folder.path());
        let mut all: Vec<String> = ["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
            .into_iter()
            .chain(args.iter().copied())
            .map(str::to_owned)
            .collect();
        all.extend(model.args());
        all.extend(patient(args));
        let mut node = Node::start(NodeSpec::new("up", folder.path(), all)).await;
        node.ready().await;
        // Without hand-offs there is nobody to hand over.
        let prefill_workers =
            usize::from(!args.windows(2).any(|pair| pair == ["--handoff", "never"]));
        sees_workers(&node, prefill_workers, 1).await;
        Self { node, model, _folder: folder }
    }

    /// As [`Cluster::assert_clean`], for the workers in the process.
    ///
    /// # Panics
    /// As there.
    pub async fn assert_clean(&self) {
        let ports = self.node.ports();
        if let Some(prefill) = ports.prefill_admin {
            assert_clean("prefill", prefill).await;
        }
        assert_clean("decode", ports.decode_admin.expect("the decode worker's port")).await;
    }
}

// === impl Folder ===

impl Folder {
    /// A fresh folder, once no other cluster is running on this machine.
    ///
    /// Tests measure time and provoke overload; two clusters on two cores would do it to each other.
    ///
    /// # Panics
    /// If it cannot be made.
    pub async fn new() -> Self {
        let path = std::env::temp_dir().join("baton-tests.lock");
        let alone = File::create(path).expect("the lock file");
        wait_until("other clusters to end", TURN_PATIENCE, || async {
            alone.try_lock().map_err(|error| error.to_string())
        })
        .await;
        let dir = tempfile::Builder::new().prefix("baton-test-").tempdir().expect("a folder");
        Self { dir: Some(dir), _alone: alone }
    }

    /// Its path.
    ///
    /// # Panics
    /// Never before it is dropped.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("a folder until dropped").path()
    }

    /// Leaves it there, whatever becomes of the test.
    pub(crate) fn keep(&mut self) {
        self.dir.iter_mut().for_each(|dir| dir.disable_cleanup(true));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            let kept: PathBuf = dir.keep();
            eprintln!("all logs: {}", kept.display());
        }
    }
}
