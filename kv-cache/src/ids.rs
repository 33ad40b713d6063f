//! The vocabulary of KV blocks: who is who.

use std::fmt;

/// An id in the model's vocabulary.
pub type TokenId = u32;

/// A physical KV block of one pool: an index in `0..pool.total_blocks()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// How often a physical block has been given out.
///
/// A block's version grows by one each time the block returns to the free list, so a reference
/// that outlived its owner can be told from a live one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockVersion(pub u32);

/// A physical block as its owner knew it; stale once the block has been freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockRef {
    /// Which block.
    pub block: BlockId,
    /// Whose turn with it.
    pub version: BlockVersion,
}

// === impl BlockId ===

impl BlockId {
    /// The block's index as a `usize`, for array access.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}", self.0)
    }
}

// === impl BlockRef ===

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.block, self.version.0)
    }
}
