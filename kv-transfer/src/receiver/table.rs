//! All hand-offs of a receiver, by id.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kv_cache::{BlockId, HandoffId};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::entry::{Closed, Entry};
use crate::TransferError;

/// Verified hand-offs remembered, so that a sender that missed the answer can ask again. It asks
/// within its stall time, some seconds: at a thousand hand-offs a second that many are not enough,
/// and it then sends them anew.
const TOMBSTONES_MAX: usize = 4096;

/// A receiver's hand-offs.
pub(super) struct Table {
    handoffs_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Those that hold blocks.
    open: HashMap<HandoffId, Arc<Entry>>,
    /// Those verified and taken.
    taken: HashMap<HandoffId, Arc<Entry>>,
    /// The keys of `taken`, oldest first.
    taken_order: VecDeque<HandoffId>,
}

// === impl Table ===

impl Table {
    pub(super) fn new(handoffs_max: usize) -> Self {
        Self { handoffs_max, inner: Mutex::default() }
    }

    /// Adds an open hand-off.
    ///
    /// # Errors
    /// [`TransferError::TooManyHandoffs`], after those whose time is over have been closed.
    pub(super) fn insert(&self, entry: Arc<Entry>) -> Result<(), TransferError> {
        self.close_expired();
        let open = &mut self.inner.lock().open;
        if open.len() >= self.handoffs_max {
            return Err(TransferError::TooManyHandoffs { handoffs_max: self.handoffs_max });
        }
        open.insert(entry.id, entry);
        Ok(())
    }

    pub(super) fn get(&self, id: HandoffId) -> Option<Arc<Entry>> {
        let inner = self.inner.lock();
        inner.open.get(&id).or_else(|| inner.taken.get(&id)).cloned()
    }

    /// Forgets a hand-off that is over, but for the answer to a sender that missed it.
    pub(super) fn retire(&self, entry: &Entry) {
        if !entry.is_over() {
            return;
        }
        let mut inner = self.inner.lock();
        let removed = inner.open.remove(&entry.id);
        if let Some(entry) = removed.filter(|entry| entry.is_tombstone()) {
            inner.remember(entry);
        }
    }

    /// Hand-offs that hold blocks.
    pub(super) fn live(&self) -> usize {
        self.open().iter().filter(|entry| !entry.is_over()).count()
    }

    pub(super) fn held_blocks(&self) -> Vec<BlockId> {
        let mut blocks = Vec::new();
        self.open().iter().for_each(|entry| entry.held_blocks(&mut blocks));
        blocks
    }

    /// Closes hand-offs whose deadline has passed, and forgets those whose last writer has left.
    fn close_expired(&self) {
        let now = Instant::now();
        for entry in self.open() {
            if entry.deadline <= now {
                entry.close(Closed::Expired);
            }
            self.retire(&entry);
        }
    }

    fn open(&self) -> Vec<Arc<Entry>> {
        self.inner.lock().open.values().cloned().collect()
    }
}

// === impl Inner ===

impl Inner {
    fn remember(&mut self, entry: Arc<Entry>) {
        self.taken_order.push_back(entry.id);
        self.taken.insert(entry.id, entry);
        if self.taken.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.taken_order.pop_front()
        {
            self.taken.remove(&oldest);
        }
    }
}
