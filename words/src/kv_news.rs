//! What a worker tells of the blocks that can be found in its caches.

use kv_cache::{BlockHash, IndexDigest, Tier};

/// News of a worker's caches: one part of a snapshot, or changes since what was told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvNews {
    /// Changes in the worker's life until now, these included: whoever had all before them knows it by this number.
    pub number: u64,
    /// How they continue what was told before.
    pub kind: KvNewsKind,
    /// In the order they happened.
    pub runs: Vec<KvRun>,
    /// What all that is there adds up to after them; `None` where more is to be told at once.
    pub digest: Option<IndexDigest>,
}

/// How news continue what was told before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvNewsKind {
    /// They begin where the last ended.
    Changes,
    /// A part of all there is; the first part makes void what was told before.
    Snapshot {
        /// Whether it is the first.
        is_first: bool,
        /// Whether it is the last.
        is_last: bool,
    },
}

/// Blocks of which the same is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvRun {
    /// Where they are, or were.
    pub tier: Tier,
    /// Whether they can be found there now, or no longer.
    pub is_there: bool,
    /// Their names.
    pub hashes: Vec<BlockHash>,
}

// === impl KvNews ===

impl KvNews {
    /// Blocks that are spoken of.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.runs.iter().map(|run| run.hashes.len()).sum()
    }
}
