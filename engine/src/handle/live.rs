//! Which blocks belong to whom the engine knows: the other side of the orphan audit.

use std::collections::HashMap;
use std::hash::Hash;

use kv_cache::{BlockId, BlockTable};
use parking_lot::Mutex;

/// The blocks of every sequence, or of everything else with a table, kept up to date by whoever changes one.
///
/// A block is entered right after it is bound and struck out after it is released, so an audit that
/// runs at the same moment may see a new block too early, and never misses a leaked one.
#[derive(Debug)]
pub(crate) struct LiveBlocks<K>(Mutex<HashMap<K, Vec<BlockId>>>);

// === impl LiveBlocks ===

impl<K> Default for LiveBlocks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash> LiveBlocks<K> {
    pub(crate) fn set(&self, key: K, table: &BlockTable) {
        let mut live = self.0.lock();
        let blocks = live.entry(key).or_default();
        blocks.clear();
        blocks.extend_from_slice(table.ids());
    }

    pub(crate) fn remove(&self, key: K) {
        self.0.lock().remove(&key);
    }

    /// Of all of them, in no order.
    pub(crate) fn blocks(&self) -> Vec<BlockId> {
        self.0.lock().values().flatten().copied().collect()
    }
}
