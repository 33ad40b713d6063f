//! The receiving worker's end of one hand-off.

use std::sync::Arc;
use std::time::Instant;

use kv_cache::{BlockTable, HandoffId};

use super::Destination;
use super::entry::{Closed, Entry};
use crate::TransferError;

/// A hand-off that may still come. Dropping it closes it: whoever sends is told, and the blocks go
/// back to the pool as soon as nobody writes to them.
#[must_use = "dropping it gives the hand-off up"]
pub struct PendingHandoff {
    entry: Arc<Entry>,
    destination: Arc<Destination>,
}

// === impl PendingHandoff ===

impl PendingHandoff {
    pub(super) fn new(entry: Arc<Entry>, destination: Arc<Destination>) -> Self {
        Self { entry, destination }
    }

    /// What the sender has to know, and nobody else.
    #[must_use]
    pub fn id(&self) -> HandoffId {
        self.entry.id
    }

    /// Leading blocks that are here already and must not be sent.
    #[must_use]
    pub fn held_blocks(&self) -> u32 {
        self.entry.span().blocks.start
    }

    /// Waits until every page is there and verified, and gives the sequence's table out, held
    /// blocks first.
    ///
    /// Dropping the future gives the hand-off up.
    ///
    /// # Errors
    /// [`TransferError::Deadline`] if that takes until `deadline` (or the hand-off's own, if that
    /// is earlier), [`TransferError::Rejected`] if what was sent had to be refused,
    /// [`TransferError::Region`] if it could not be written.
    pub async fn verified(self, deadline: Instant) -> Result<BlockTable, TransferError> {
        let deadline = self.entry.deadline.min(deadline.into());
        if tokio::time::timeout_at(deadline, self.entry.ended()).await.is_err() {
            // Unless it has ended in this very moment, this is how.
            self.entry.close(Closed::Expired);
        }
        self.entry.take_outcome().unwrap_or(Err(TransferError::Deadline))
    }
}

impl Drop for PendingHandoff {
    fn drop(&mut self) {
        self.entry.close(Closed::Abandoned);
        self.destination.table.retire(&self.entry);
    }
}

impl std::fmt::Debug for PendingHandoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingHandoff").field("id", &self.id()).finish_non_exhaustive()
    }
}
