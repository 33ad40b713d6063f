//! Ownership of one block, as a value.

use std::fmt;

use super::{BlockPool, CommittedBlock, SealOutcome};
use crate::{BlockId, BlockRef, TokenId};

/// One owner's claim on a block: while a handle lives, the block is neither evicted nor given out.
///
/// A clone is one more owner. Whoever may still write to a block (an open receive, a running step)
/// keeps a handle until that is over, which is what makes freeing safe.
pub struct BlockHandle {
    pool: BlockPool,
    reference: BlockRef,
}

// === impl BlockHandle ===

impl BlockHandle {
    /// Takes over an owner that `pool` has already counted.
    pub(super) fn adopt(pool: BlockPool, reference: BlockRef) -> Self {
        Self { pool, reference }
    }

    /// The physical block.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.reference.block
    }

    /// The block and whose turn it is: what goes on the wire.
    #[must_use]
    pub fn reference(&self) -> BlockRef {
        self.reference
    }

    /// Publishes the block, now full, under its name for [`BlockPool::match_prefix`].
    ///
    /// After that it must not be written again. Sealing it twice under one name changes nothing.
    ///
    /// - `block`: its name, and where it hangs in the tree of prefixes.
    /// - `tokens`: the block's own, `[block_tokens]`.
    ///
    /// # Panics
    /// If `tokens` aren't exactly `block_tokens`, or the block is published already as another.
    pub fn seal(&self, block: CommittedBlock, tokens: &[TokenId]) -> SealOutcome {
        self.pool.lock().seal(self.id(), block, tokens)
    }

    /// Takes the block's name back: [`BlockPool::match_prefix`] doesn't find it any more. Says whether it
    /// had one.
    ///
    /// For a block whose contents turn out to be wrong; those who hold it are not told.
    pub fn unseal(&self) -> bool {
        self.pool.lock().unseal(self.id())
    }

    /// Whether there are other owners, so that a write here would be read there.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.pool.lock().owners(self.id()) > 1
    }

    /// Whether nobody else reads this block or could find it: one owner, not published.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let state = self.pool.lock();
        state.owners(self.id()) == 1 && !state.is_published(self.id())
    }
}

impl Clone for BlockHandle {
    fn clone(&self) -> Self {
        self.pool.lock().share(self.id());
        Self { pool: self.pool.clone(), reference: self.reference }
    }
}

impl Drop for BlockHandle {
    fn drop(&mut self) {
        self.pool.lock().release(self.reference.block);
    }
}

impl fmt::Debug for BlockHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHandle({})", self.reference)
    }
}
