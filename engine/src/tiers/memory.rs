//! Where a tier's blocks lie.

use std::sync::Arc;

use kv_cache::{BlockId, Unsaved};
use parking_lot::RwLock;

/// A tier's memory, by blocks of its pool. Which of them mean anything, the pool knows.
pub(super) trait TierMemory: Send + Sync {
    /// A block's bytes, as they were written.
    ///
    /// # Errors
    /// [`TierFault`] if that can't be had.
    fn read(&self, block: BlockId) -> Result<Arc<Vec<u8>>, TierFault>;

    /// Keeps `bytes` as a block, which nobody finds meanwhile.
    ///
    /// - `of`: what they are.
    ///
    /// # Errors
    /// [`TierFault`] if they aren't kept; the block then holds nothing.
    fn write(&self, block: BlockId, of: &Unsaved, bytes: &[u8]) -> Result<(), TierFault>;

    /// Makes sure that blocks which nobody may find aren't found in a later life, either.
    ///
    /// # Errors
    /// [`TierFault`] if they may be.
    fn strike(&self, blocks: &[BlockId]) -> Result<(), TierFault> {
        let _ = blocks;
        Ok(())
    }
}

/// Why a tier's block can't be had, or kept.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum TierFault {
    /// The host has no memory left.
    #[error("no memory is left for it")]
    NoMemory,
    /// What is there is not what was written, or is no longer there.
    #[error("its contents are not what was written")]
    Corrupt,
    /// The system said so.
    #[error("{0}")]
    Io(String),
}

/// Blocks in main memory, which is taken as they come.
pub(super) struct HostMemory(Box<[RwLock<Arc<Vec<u8>>>]>);

// === impl TierFault ===

impl From<std::io::Error> for TierFault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Corrupt,
            _ => Self::Io(error.to_string()),
        }
    }
}

// === impl HostMemory ===

impl HostMemory {
    pub(super) fn new(blocks: u32) -> Self {
        Self((0..blocks).map(|_| RwLock::default()).collect())
    }
}

impl TierMemory for HostMemory {
    fn read(&self, block: BlockId) -> Result<Arc<Vec<u8>>, TierFault> {
        Ok(Arc::clone(&self.0[block.index()].read()))
    }

    fn write(&self, block: BlockId, _: &Unsaved, bytes: &[u8]) -> Result<(), TierFault> {
        let mut kept = self.0[block.index()].write();
        if let Some(kept) = Arc::get_mut(&mut kept).filter(|kept| kept.len() == bytes.len()) {
            kept.copy_from_slice(bytes);
            return Ok(());
        }
        let mut new = Vec::new();
        new.try_reserve_exact(bytes.len()).map_err(|_| TierFault::NoMemory)?;
        new.extend_from_slice(bytes);
        *kept = Arc::new(new);
        Ok(())
    }
}
