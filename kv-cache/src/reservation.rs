//! Promised blocks: memory is counted when work is admitted, and bound when it is needed.

use crate::{BlockHandle, BlockPool};

/// Credits for blocks of one pool; each can become a block at any time.
///
/// A queued request holds credits and no memory: blocks are bound as its tokens arrive. Dropping the
/// reservation gives the rest back, so whatever ends a request also ends its claim.
#[derive(Debug)]
pub struct Reservation {
    pool: BlockPool,
    credits: u32,
}

/// The pool can't promise that many blocks now.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{need_blocks} KV blocks needed, {free_blocks} free")]
pub struct NoCapacity {
    /// Blocks asked for.
    pub need_blocks: u32,
    /// Blocks that could have been promised.
    pub free_blocks: u32,
}

// === impl Reservation ===

impl Reservation {
    /// Takes over credits that `pool` has already counted.
    pub(crate) fn adopt(pool: BlockPool, credits: u32) -> Self {
        Self { pool, credits }
    }

    /// Credits not yet bound.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.credits
    }

    /// Turns one credit into a block, evicting the cached one that is worth least where none is
    /// free; `None` once all credits are spent.
    ///
    /// The block's contents are undefined.
    pub fn bind(&mut self) -> Option<BlockHandle> {
        self.credits = self.credits.checked_sub(1)?;
        Some(self.pool.bind_credit())
    }

    /// Turns `blocks` credits into blocks, as [`Reservation::bind`]; `None`, and nothing is bound, if
    /// fewer remain.
    ///
    /// In the order of their ids: pages that lie side by side are copied as one. A prompt's blocks
    /// are evicted from the last to the first, so they are found as neighbours once more.
    pub fn bind_many(&mut self, blocks: u32) -> Option<Vec<BlockHandle>> {
        self.credits = self.credits.checked_sub(blocks)?;
        Some(self.pool.bind_credits(blocks))
    }

    /// Adds `blocks` credits, all or none.
    ///
    /// # Errors
    /// [`NoCapacity`] if the pool can't promise them; the reservation is then as before.
    pub fn grow(&mut self, blocks: u32) -> Result<(), NoCapacity> {
        self.pool.add_credits(blocks)?;
        self.credits += blocks;
        Ok(())
    }

    /// Moves `blocks` credits into a reservation of their own.
    ///
    /// # Panics
    /// If fewer than `blocks` remain.
    #[must_use = "dropping the part gives its credits back"]
    pub fn split(&mut self, blocks: u32) -> Self {
        assert!(blocks <= self.credits, "{blocks} credits of {} split off", self.credits);
        self.credits -= blocks;
        Self::adopt(self.pool.clone(), blocks)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.credits > 0 {
            self.pool.return_credits(self.credits);
        }
    }
}
