//! What a worker needs to know to start.

use std::net::SocketAddr;
use std::time::Duration;

use cluster::connections::ConnectionLimits;
use engine::EngineConfig;
use scheduler::{Role, WorkerId};

/// The plain, validated settings of one worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The worker's name, the same after a restart.
    pub id: WorkerId,
    /// The cluster it belongs to.
    pub namespace: String,
    /// Named for which phase.
    pub role: Role,
    /// The model's name as served.
    pub model: String,
    /// The engine.
    pub engine: EngineConfig,
    /// Where the gRPC server listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `/health`, `/ready` and `/metrics` listen; none without.
    pub admin: Option<SocketAddr>,
    /// The host that other nodes reach this one by; by default the one it listens on.
    pub advertise_host: Option<String>,
    /// Time between two load reports.
    pub report_interval: Duration,
    /// How long a leaving worker waits for its work to end.
    pub drain_deadline: Duration,
    /// Requests that wait for KV blocks before more are refused.
    pub credit_queue_max: usize,
    /// Connections of routers and other workers.
    pub connections: ConnectionLimits,
}
