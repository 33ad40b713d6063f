//! A worker as the others see it: who it is and what it can do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Fingerprint;

/// A worker's name: chosen by whoever starts it, the same after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkerId(pub Arc<str>);

/// One life of a worker: a process that restarts has a new one, so nobody mistakes it for the old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// Which phase a worker is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Computes prompts.
    Prefill,
    /// Generates tokens.
    Decode,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Loading; takes no work.
    Starting,
    /// Takes work.
    Serving,
    /// Finishes what it has; takes no new work.
    Draining,
    /// Has no work left, but KV blocks that others may still fetch.
    HoldingKv,
    /// Has left.
    Gone,
}

/// A worker's address in one of its lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Who.
    pub worker: WorkerId,
    /// Which life; a call that names another is refused.
    pub incarnation: Incarnation,
    /// `http://host:port` of its gRPC server.
    pub uri: String,
}

/// A worker in one of its lives: who may have failed, while the next life of the same name has not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life {
    /// Who.
    pub worker: WorkerId,
    /// Which life.
    pub incarnation: Incarnation,
}

/// The fixed limits of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// KV blocks in its pool.
    pub kv_blocks: u32,
    /// Token slots of a block.
    pub block_tokens: u32,
    /// Sequences it runs at once.
    pub sequences_max: u32,
    /// Requests it queues before it refuses.
    pub queue_max: u32,
    /// Longest prompt plus output, tokens.
    pub context_tokens_max: u32,
}

/// What a worker publishes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Who and where.
    pub address: Address,
    /// Named for which phase.
    pub role: Role,
    /// Where in its life.
    pub state: NodeState,
    /// With whom it can exchange blocks.
    pub fingerprint: Fingerprint,
    /// Its limits.
    pub capacity: Capacity,
    /// Transports it can receive by, best first (`grpc`, later `cuda-ipc`, `nccl`).
    pub transports: Vec<String>,
}

/// A role that isn't one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown role {0:?}: want `prefill` or `decode`")]
pub struct UnknownRole(pub String);

// === impl WorkerId ===

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for WorkerId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

// === impl Address ===

impl Address {
    /// Whose address this is.
    #[must_use]
    pub fn life(&self) -> Life {
        Life { worker: self.worker.clone(), incarnation: self.incarnation }
    }
}

// === impl Life ===

impl Life {
    /// Whether `address` is of this life.
    #[must_use]
    pub fn is_at(&self, address: &Address) -> bool {
        self.incarnation == address.incarnation && self.worker == address.worker
    }
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.worker, self.incarnation.0)
    }
}

// === impl Role ===

impl Role {
    /// The name used in keys, metrics and flags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "prefill" => Ok(Self::Prefill),
            "decode" => Ok(Self::Decode),
            other => Err(UnknownRole(other.to_owned())),
        }
    }
}

// === impl NodeState ===

impl NodeState {
    /// Whether new work may be placed on a node in this state.
    #[must_use]
    pub fn takes_work(self) -> bool {
        matches!(self, Self::Serving)
    }
}
