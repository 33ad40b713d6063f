//! Blocks of computed prompts that wait for their receiver's word.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kv_cache::{BlockId, BlockTable};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// KV of computed prompts that haven't been handed over, from which on no prompt is begun: 0.3 s of a link of
/// 6 GB/s, or sixteen prompts of 1,024 tokens of an 8B model, twice what a step computes.
///
/// Where pages leave slower than they come, the difference waits. Before its prompt a request waits for its
/// first token and may be computed elsewhere; behind it, it has begun to speak and falls silent.
pub(crate) const OUTGOING_BYTES_MAX: usize = 2 << 30;

/// The tables of hand-offs whose prompt is computed and whose blocks are not verified yet.
#[derive(Debug)]
pub(crate) struct Outgoing {
    blocks_max: usize,
    tables: Mutex<Tables>,
    /// Told whenever a table has left.
    left: Notify,
    /// Held by the first in line for [`Outgoing::room`].
    line: tokio::sync::Mutex<()>,
    waiting: AtomicU32,
}

#[derive(Debug, Default)]
struct Tables {
    by_key: HashMap<u64, Vec<BlockId>>,
    blocks: usize,
    next: u64,
}

/// One table on its way out, for as long as this lives.
pub(crate) struct OutgoingTable {
    outgoing: Arc<Outgoing>,
    key: u64,
    table: Option<BlockTable>,
}

/// Counts a prompt as waiting for as long as it lives.
struct Waiting<'a>(&'a AtomicU32);

// === impl Outgoing ===

impl Outgoing {
    /// None on their way.
    ///
    /// - `blocks_max`: on their way, from which on there is no room for more prompts.
    pub(crate) fn new(blocks_max: usize) -> Self {
        Self {
            blocks_max: blocks_max.max(1),
            tables: Mutex::default(),
            left: Notify::new(),
            line: tokio::sync::Mutex::default(),
            waiting: AtomicU32::new(0),
        }
    }

    pub(crate) fn hold(self: &Arc<Self>, table: BlockTable) -> OutgoingTable {
        let mut tables = self.tables.lock();
        let key = tables.next;
        tables.next += 1;
        tables.blocks += table.blocks().len();
        tables.by_key.insert(key, table.ids().to_vec());
        OutgoingTable { outgoing: self.clone(), key, table: Some(table) }
    }

    /// Blocks of all tables.
    pub(crate) fn held_blocks(&self) -> Vec<BlockId> {
        self.tables.lock().by_key.values().flatten().copied().collect()
    }

    /// Prompts that wait for room.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits while computed prompts leave too slowly, first come first served.
    ///
    /// Dropping the future leaves the line. The caller's deadline bounds the wait.
    pub(crate) async fn room(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let _turn = self.line.lock().await;
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            if self.tables.lock().blocks < self.blocks_max {
                return;
            }
            left.await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl OutgoingTable ===

impl Drop for OutgoingTable {
    fn drop(&mut self) {
        // The blocks first: for an audit in between, they have an owner too many rather than none.
        self.table.take();
        let mut tables = self.outgoing.tables.lock();
        let blocks = tables.by_key.remove(&self.key).map_or(0, |blocks| blocks.len());
        tables.blocks -= blocks;
        drop(tables);
        self.outgoing.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use kv_cache::BlockPool;

    use super::*;

    fn table(pool: &BlockPool, blocks: u32) -> BlockTable {
        let mut table = BlockTable::new(pool.block_tokens());
        let mut credit = pool.reserve(blocks).unwrap();
        std::iter::from_fn(|| credit.bind()).for_each(|block| table.push(block));
        table
    }

    #[tokio::test]
    async fn prompts_wait_while_too_much_is_on_its_way() {
        let pool = BlockPool::new(8, 4);
        let outgoing = Arc::new(Outgoing::new(4));
        let first = outgoing.hold(table(&pool, 3));
        outgoing.room().now_or_never().expect("3 of 4");
        let second = outgoing.hold(table(&pool, 3));
        let (mut early, mut late) = (Box::pin(outgoing.room()), Box::pin(outgoing.room()));
        assert!((&mut early).now_or_never().is_none() && (&mut late).now_or_never().is_none());
        assert_eq!((outgoing.waiting(), outgoing.held_blocks().len()), (2, 6));
        drop(first);
        assert!((&mut late).now_or_never().is_none(), "not its turn");
        assert!((&mut early).now_or_never().is_some() && (&mut late).now_or_never().is_some());
        assert_eq!((outgoing.waiting(), outgoing.held_blocks().len()), (0, 3));
        drop(second);
        assert_eq!(pool.counts().active, 0);
    }
}
