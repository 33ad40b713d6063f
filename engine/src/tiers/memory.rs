//! Where a tier's blocks lie.

use std::ops::Deref;

use kv_cache::{BlockId, Unsaved};
use parking_lot::{RwLock, RwLockReadGuard};

/// A tier's memory, by blocks of its pool. Which of them mean anything, the pool knows.
pub(super) trait TierMemory: Send + Sync {
    /// A block's bytes, as they were written.
    ///
    /// # Errors
    /// [`TierFault`] if that can't be had.
    fn read(&self, block: BlockId) -> Result<Lent<'_>, TierFault>;

    /// Keeps `bytes` as a block, which nobody reads meanwhile.
    ///
    /// - `of`: what they are.
    ///
    /// # Errors
    /// [`TierFault`] if they aren't kept; what the block holds is then undefined.
    fn write(&self, block: BlockId, of: &Unsaved, bytes: &[u8]) -> Result<(), TierFault>;
}

/// Why a tier's block can't be had, or kept.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum TierFault {
    /// The host has no memory left.
    #[error("no memory is left for it")]
    NoMemory,
}

/// A block's bytes while they are read.
pub(super) enum Lent<'a> {
    /// Where they are kept.
    Kept(RwLockReadGuard<'a, Vec<u8>>),
}

/// Blocks in main memory, which is taken as they come.
pub(super) struct HostMemory(Box<[RwLock<Vec<u8>>]>);

// === impl Lent ===

impl Deref for Lent<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Kept(bytes) => bytes,
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
    fn read(&self, block: BlockId) -> Result<Lent<'_>, TierFault> {
        Ok(Lent::Kept(self.0[block.index()].read()))
    }

    fn write(&self, block: BlockId, _: &Unsaved, bytes: &[u8]) -> Result<(), TierFault> {
        let mut kept = self.0[block.index()].write();
        kept.clear();
        kept.try_reserve_exact(bytes.len()).map_err(|_| TierFault::NoMemory)?;
        kept.extend_from_slice(bytes);
        Ok(())
    }
}
