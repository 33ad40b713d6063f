//! The workers that are simulated, as they would publish themselves.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use scheduler::batching::BatchLimits;
use scheduler::cost::StepSeed;
use scheduler::{ClusterSnapshot, WorkerView};
use words::{Address, Capacity, Fingerprint, Incarnation, NodeState, Role, WorkerInfo};

/// The model's name, which nobody asks for.
pub(super) const MODEL: &str = "simulated";

/// Prompt tokens that a step may have, at most: what a worker of an H200 begins with.
const STEP_TOKENS_MAX: u32 = 8_448;

/// A hundredth of the blocks is left for the growth of what runs when a prompt is admitted.
const WATERMARK: u32 = 100;

/// Requests that wait at a worker at most; what bounds them first is time.
const QUEUE_MAX: u32 = 1_024;

/// Workers of one kind of machine.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// Workers that compute prompts and hand them over.
    pub prefill: usize,
    /// Workers that generate, and compute prompts where that costs less.
    pub decode: usize,
    /// KV blocks of each.
    pub blocks: u32,
    /// Token slots of a block.
    pub block_tokens: u32,
    /// Sequences that run at once on one.
    pub sequences_max: u32,
    /// What steps take there.
    pub steps: StepSeed,
    /// What a hand-off adds to a prompt.
    pub handoff: Handoff,
}

/// What a hand-off takes: a line over the prompt's tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Handoff {
    /// Of any prompt.
    pub fixed: Duration,
    /// Seconds of each token: of the last pages, which nothing is left to hide behind.
    pub token_s: f64,
}

// === impl Fleet ===

impl Fleet {
    /// How many they are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.prefill + self.decode
    }

    pub(super) fn limits(&self) -> BatchLimits {
        BatchLimits {
            tokens_max: STEP_TOKENS_MAX.max(self.sequences_max + self.block_tokens),
            sequences_max: self.sequences_max,
            block_tokens: self.block_tokens,
            watermark_blocks: self.blocks / WATERMARK,
            wanted_blocks: 0,
        }
    }

    /// The cluster before anybody has reported.
    pub(super) fn snapshot(&self) -> ClusterSnapshot {
        let prefill = (0..self.prefill).map(|at| self.worker("p", at, Role::Prefill));
        let decode = (0..self.decode).map(|at| self.worker("d", at, Role::Decode));
        ClusterSnapshot { workers: prefill.chain(decode).collect() }
    }

    fn worker(&self, kind: &str, at: usize, role: Role) -> WorkerView {
        let (worker, incarnation) = (format!("{kind}{}", at + 1), Incarnation(1));
        WorkerView::new(Arc::new(WorkerInfo {
            address: Address { worker: worker.as_str().into(), incarnation, uri: String::new() },
            role,
            state: NodeState::Serving,
            fingerprint: self.fingerprint(),
            capacity: Capacity {
                kv_blocks: self.blocks,
                block_tokens: self.block_tokens,
                sequences_max: self.sequences_max,
                queue_max: QUEUE_MAX,
                context_tokens_max: 0,
            },
            transports: Vec::new(),
        }))
    }

    fn fingerprint(&self) -> Fingerprint {
        let layout = format!(
            "layers=32 kv_heads=8 head_dim=128 block_tokens={} dtype=bf16",
            self.block_tokens
        );
        Fingerprint {
            model: MODEL.into(),
            weights: "5eed".into(),
            kv_layout: layout.parse().expect("a layout"),
            hash_version: kv_cache::HASH_VERSION,
            wire_version: 1,
        }
    }
}

impl fmt::Display for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefill {
            0 => write!(f, "{} engines", self.decode)?,
            _ => write!(f, "{} prefill and {} decode workers", self.prefill, self.decode)?,
        }
        write!(f, " of {} blocks of {} tokens", self.blocks, self.block_tokens)
    }
}

// === impl Handoff ===

impl Handoff {
    /// Between a prompt's end and its first decode step elsewhere.
    pub(super) fn takes(self, tokens: u32) -> Duration {
        self.fixed + Duration::from_secs_f64(self.token_s * f64::from(tokens))
    }
}

impl Default for Handoff {
    /// What the scheduler assumes before any was measured.
    fn default() -> Self {
        Self { fixed: Duration::from_millis(3), token_s: 1.6e-6 }
    }
}
