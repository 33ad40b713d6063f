//! The processes of a cluster, on simulated ground.

pub mod clients;
pub mod etcd;
mod locks;
pub mod memory;
pub mod process;
mod router;
pub mod script;
mod worker;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cluster::rpc::Listener;
use cluster::security::{NodeRole, Security};
use cluster::telemetry::Metrics;
use cluster::{EtcdConfig, EtcdMembership};
use parking_lot::Mutex;
use scheduler::HandoffPolicy;
use tokio_util::task::TaskTracker;

pub use self::locks::Locksmith;
pub use self::router::router;
pub use self::worker::{WorkerSpec, worker};
use crate::checks::Verdicts;
use crate::checks::coverage::Coverage;
use crate::network::{HostId, Wire};
use crate::planted::Bug;

const MODEL: &str = "script";
/// The cluster's name.
pub const NAMESPACE: &str = "simulation";
const ETCD: HostId = HostId(1);
/// Time between two reports: more than usual, for they are most of what goes over the network.
const REPORTS: Duration = Duration::from_millis(250);

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
    /// How nodes prove to each other who they are.
    pub locks: Locksmith,
    /// Whether reports arrive as they were sent.
    pub reports_hold: bool,
    /// The first token that routers let requests in for comes within this time.
    pub ttft: Duration,
    /// When routers have prompts handed over.
    pub handoff: HandoffPolicy,
    /// Where violations go.
    pub verdicts: Verdicts,
    /// Where it is noted what was come through.
    pub coverage: Coverage,
    /// Told of the node's counters once it has some.
    pub metrics: Arc<Mutex<Option<Metrics>>>,
}

/// Runs etcd.
pub async fn etcd(place: Place, disk: etcd::Disk) {
    let store = etcd::Store::open(disk, place.coverage.clone());
    etcd::serve(place.listener(), store).await;
}

// === impl Place ===

impl Place {
    fn listener(&self) -> Listener {
        Listener::over(Box::new(self.wire.listen()), self.host.addr())
    }

    /// How the node of a role and name on it meets others.
    fn security(&self, role: NodeRole, id: &str) -> Security {
        self.locks.node(NAMESPACE, role, id)
    }

    fn shows(&self, metrics: &Metrics) {
        *self.metrics.lock() = Some(metrics.clone());
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
