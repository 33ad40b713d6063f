//! Which blocks belong to a sequence the engine knows: the other side of the orphan audit.

use std::collections::HashMap;

use kv_cache::{BlockId, BlockTable};
use parking_lot::Mutex;
use scheduler::batching::SequenceKey;

/// The blocks of every sequence, kept up to date by whoever changes a table.
///
/// A block is entered right after it is bound and struck out after it is released, so an audit that
/// runs at the same moment may see a new block too early, and never misses a leaked one.
#[derive(Debug, Default)]
pub(crate) struct LiveBlocks(Mutex<HashMap<SequenceKey, Vec<BlockId>>>);

// === impl LiveBlocks ===

impl LiveBlocks {
    pub(crate) fn set(&self, key: SequenceKey, table: &BlockTable) {
        let mut live = self.0.lock();
        let blocks = live.entry(key).or_default();
        blocks.clear();
        blocks.extend_from_slice(table.ids());
    }

    pub(crate) fn remove(&self, key: SequenceKey) {
        self.0.lock().remove(&key);
    }

    /// Each once, in order.
    pub(crate) fn blocks(&self) -> Vec<BlockId> {
        let mut blocks: Vec<_> = self.0.lock().values().flatten().copied().collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }
}
