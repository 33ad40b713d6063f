//! What a worker needs to know to start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::connections::ConnectionLimits;
use cluster::security::{Certificates, Security};
use engine::EngineConfig;
use words::{Role, WorkerId};

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
    /// The longest that a caller may have it work on one request.
    pub deadline_max: Duration,
    /// How it meets other nodes.
    pub security: Security,
    /// The certificate of health and metrics; `None`: they are served unencrypted.
    pub admin_certificates: Option<Arc<Certificates>>,
    /// Whether strangers may come: said where operators look.
    pub insecure: bool,
    /// Requests that wait for KV blocks before more are refused.
    pub credit_queue_max: usize,
    /// Connections of routers and other workers.
    pub connections: ConnectionLimits,
}

// === impl WorkerConfig ===

impl WorkerConfig {
    /// Whether strangers may come, and nothing keeps them out.
    #[must_use]
    pub fn is_insecure(&self) -> bool {
        self.insecure && !self.security.is_locked()
    }
}
