//! Blocks of computed prompts that wait for their receiver's word.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kv_cache::{BlockId, BlockTable};
use parking_lot::Mutex;
use worker::KvHoldings;

/// The tables of hand-offs whose prompt is computed and whose blocks are not verified yet.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    tables: Mutex<HashMap<u64, Vec<BlockId>>>,
    next: AtomicU64,
}

/// One table on its way out, for as long as this lives.
pub(crate) struct OutgoingTable {
    outgoing: Arc<Outgoing>,
    key: u64,
    table: Option<BlockTable>,
}

// === impl Outgoing ===

impl Outgoing {
    pub(crate) fn hold(self: &Arc<Self>, table: BlockTable) -> OutgoingTable {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        self.tables.lock().insert(key, table.ids());
        OutgoingTable { outgoing: self.clone(), key, table: Some(table) }
    }
}

impl KvHoldings for Outgoing {
    fn held_blocks(&self) -> Vec<BlockId> {
        self.tables.lock().values().flatten().copied().collect()
    }

    fn waiting(&self) -> u32 {
        0
    }
}

// === impl OutgoingTable ===

impl Drop for OutgoingTable {
    fn drop(&mut self) {
        // The blocks first: for an audit in between, they have an owner too many rather than none.
        self.table.take();
        self.outgoing.tables.lock().remove(&self.key);
    }
}
