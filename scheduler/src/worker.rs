//! A worker as the others see it: who it is, what it can do, how busy it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kv_cache::ChainHasher;
use serde::{Deserialize, Serialize};

use crate::TenantSalt;

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

/// What two workers must have in common to exchange KV blocks.
///
/// Compared before anything is routed; workers with unequal fingerprints are never paired.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Model name as served, e.g. `baton-demo`.
    pub model: String,
    /// Hex digest over configuration and weights.
    pub weights: String,
    /// KV layout, spelled out: layers, heads, head size, block size, dtype.
    pub kv_layout: String,
    /// Version of the block hash.
    pub hash_version: u32,
    /// Version of the hand-off protocol.
    pub wire_version: u32,
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

/// How busy a worker is: one numbered report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Grows by one with each report of an incarnation.
    pub sequence: u64,
    /// Sequences in the running batch.
    pub running: u32,
    /// Requests admitted or queued, not yet running.
    pub waiting: u32,
    /// Prompt tokens not yet computed, over running and waiting requests.
    pub queued_prefill_tokens: u64,
    /// Tokens of KV that running sequences read each step.
    pub context_tokens: u64,
    /// KV blocks nobody uses (cached ones can be evicted and count as free here).
    pub free_blocks: u32,
    /// KV blocks in all.
    pub total_blocks: u32,
    /// Measured prefill rate, tokens per second; 0 until measured.
    pub prefill_tokens_per_s: f64,
    /// Measured time of a decode step, seconds; 0 until measured.
    pub decode_step_s: f64,
    /// KV blocks held by no live sequence and no open hand-off: a leak unless 0.
    pub orphan_blocks: u32,
    /// KV blocks beside those in use that what was let in may need until it ends.
    pub promised_blocks: u32,
    /// KV blocks that requests in line will need.
    pub wanted_blocks: u32,
    /// Mean output of sequences that ended, tokens; 0 until measured.
    pub output_tokens: f64,
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

/// [`Fingerprint::chain_hasher`] for an engine, which knows these two and no more.
#[must_use]
pub fn chain_hasher(weights: &str, kv_layout: &str, salt: &TenantSalt) -> ChainHasher {
    ChainHasher::new(format!("{weights}\n{kv_layout}"), &salt.0)
}

// === impl Fingerprint ===

impl Fingerprint {
    /// The hasher that names this model's KV blocks for one tenant, the same on every node.
    ///
    /// Weights and layout count, and neither the name a model is served under nor the wire's
    /// version: they don't change what is in a block.
    #[must_use]
    pub fn chain_hasher(&self, salt: &TenantSalt) -> ChainHasher {
        chain_hasher(&self.weights, &self.kv_layout, salt)
    }

    /// Whether a sequence that a worker of one began may be gone on with by a worker of the other:
    /// the same weights, computed alike. Versions of wire and hash don't change a token.
    #[must_use]
    pub fn computes_as(&self, other: &Self) -> bool {
        self.weights == other.weights
            && self.kv_layout == other.kv_layout
            && self.model == other.model
    }

    /// A short name for clients, logs and metrics: `fp_` and 16 hex digits, the same on every node
    /// for those that compute alike.
    #[must_use]
    pub fn name(&self) -> String {
        let digest = self.chain_hasher(&TenantSalt::default()).extend(None, &[]).to_string();
        format!("fp_{}", &digest[..16])
    }

    /// Whether an operator who writes `wanted` means this one: the beginning of its name or of the
    /// weights' digest.
    #[must_use]
    pub fn is_named(&self, wanted: &str) -> bool {
        !wanted.is_empty() && (self.weights.starts_with(wanted) || self.name().starts_with(wanted))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            model: "demo".into(),
            weights: "abc".into(),
            kv_layout: "2x2x16x16xf32".into(),
            hash_version: 1,
            wire_version: 1,
        }
    }

    fn name(fingerprint: &Fingerprint, salt: &[u8]) -> String {
        let salt = TenantSalt(salt.into());
        fingerprint.chain_hasher(&salt).extend(None, &[1, 2, 3, 4]).to_string()
    }

    /// A change here makes a new release's workers deaf to the old one's cache.
    #[test]
    fn block_names_are_pinned_and_depend_on_contents_only() {
        let renamed = Fingerprint { model: "other".into(), wire_version: 2, ..fingerprint() };
        assert_eq!(name(&fingerprint(), b""), "9dd7654708e790a283c1cf84bef2e957");
        assert_eq!(name(&renamed, b""), name(&fingerprint(), b""));
    }

    #[test]
    fn other_weights_layouts_and_tenants_have_other_names() {
        let weights = Fingerprint { weights: "abd".into(), ..fingerprint() };
        let layout = Fingerprint { kv_layout: "2x2x16x16xbf16".into(), ..fingerprint() };
        let mut names = [
            name(&fingerprint(), b""),
            name(&fingerprint(), b"tenant"),
            name(&weights, b""),
            name(&layout, b""),
        ];
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
