//! The memory that holds a pool's pages, seen from outside the engine.
//!
//! What every region can is in [`KvRegion`]: its pages are copied through the host. What some can beside
//! that is a trait of its own, which a region gives out if it can: [`PeerRegion`], for regions that others
//! of their kind reach from memory to memory. Callers ask the region (`reaches`, `copy_from`), and never
//! what it is made of.

#[cfg(feature = "testing")]
pub mod conformance;
mod host;
mod peer;
mod range;

pub use host::HostRegion;
pub use peer::{Kin, PeerPages, PeerRegion};
pub use range::PageRange;

use std::sync::Arc;

use crate::{BlockRef, KvLayout};

/// A point on a region's timeline: everything written before it is visible after it.
///
/// Plain data, so that an engine can hand it to a transfer without either knowing the other. A host
/// region has passed every fence it gave out; a device region waits for its stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(pub u64);

/// Memory that holds the KV pages of one pool.
///
/// Implemented by each backend of the engine; read and written by the transfer crate. Calls may
/// block for the time of the copy, so they belong on a blocking thread.
pub trait KvRegion: Send + Sync {
    /// The shape of every page in this region.
    fn layout(&self) -> &KvLayout;

    /// Waits until `fence` has passed; what was written before it is then read without a wait.
    ///
    /// So that whoever reads takes buffers and turns only for what is there.
    ///
    /// # Errors
    /// [`RegionError::Device`] for a fence that was never given out, or if what was submitted before
    /// it has failed.
    fn settle(&self, fence: Fence) -> Result<(), RegionError> {
        let _ = fence;
        Ok(())
    }

    /// Copies `pages` out, after `fence` has passed.
    ///
    /// - `out`: `pages.pages() * layout.page_bytes()` bytes, layer first, then block.
    ///
    /// # Errors
    /// [`RegionError::Length`] if `out` has another length, [`RegionError::OutOfRange`] for a block
    /// or layer that the region doesn't have, [`RegionError::Device`] if the copy failed.
    fn gather(
        &self,
        pages: &PageRange<'_>,
        fence: Fence,
        out: &mut [u8],
    ) -> Result<(), RegionError>;

    /// Copies `bytes` into `pages`; the result is visible to steps that begin after it returns.
    ///
    /// # Errors
    /// As [`KvRegion::gather`].
    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError>;

    /// Copies whole blocks in, each from a place of its own; the result is visible to steps that begin after it returns.
    ///
    /// - `from`: of each block its pages in all layers, one after the other.
    ///
    /// # Errors
    /// As [`KvRegion::gather`].
    fn restore(&self, blocks: &[BlockRef], from: &[&[u8]]) -> Result<(), RegionError> {
        let pages = PageRange { layers: 0..self.layout().layers(), blocks };
        pages.check_blocks(self.layout(), from)?;
        self.scatter(&pages, &joined(from, self.layout().page_bytes()))
    }

    /// Who makes the calls that may block, if the caller's blocking threads shouldn't: in a simulation
    /// a copy takes virtual time, and no thread.
    fn offload(&self) -> Option<Offload> {
        None
    }

    /// The region as one that reaches others of its kind, if it is one.
    fn as_peer(&self) -> Option<&dyn PeerRegion> {
        None
    }
}

/// Work that may block, and whoever has it done. It goes on to its end, whoever waits for it.
pub type Offload = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// Why a copy to or from a region failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegionError {
    /// The buffer doesn't fit the pages.
    #[error("buffer has {got} bytes where the pages take {want}")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes needed.
        want: usize,
    },
    /// The region has no such page.
    #[error("no page for block {block} in layers up to {layer_end}")]
    OutOfRange {
        /// The block asked for.
        block: BlockRef,
        /// The end of the layers asked for.
        layer_end: u32,
    },
    /// Neither region reaches the other's memory.
    #[error("pages of the two regions can't be copied from memory to memory")]
    Apart,
    /// The device failed.
    #[error("device copy failed: {0}")]
    Device(String),
}

/// Blocks put together: layer first, then block.
fn joined(blocks: &[&[u8]], page: usize) -> Vec<u8> {
    let block_bytes = blocks.first().map_or(0, |block| block.len());
    let mut joined = Vec::with_capacity(blocks.len() * block_bytes);
    for start in (0..block_bytes).step_by(page) {
        blocks.iter().for_each(|block| joined.extend_from_slice(&block[start..start + page]));
    }
    joined
}

// === impl KvRegion ===

impl dyn KvRegion + '_ {
    /// Whether `copy_from` can copy pages of `peer`.
    #[must_use]
    pub fn reaches(&self, peer: &dyn KvRegion) -> bool {
        self.as_peer().is_some_and(|this| this.reaches(peer))
    }

    /// Copies pages of another region into `pages`, from memory to memory, after the fence has
    /// passed there; the result is visible to steps that begin after it returns.
    ///
    /// - `peer`: as many blocks as `pages` has, each for the one in its place; the same layers.
    ///
    /// # Errors
    /// [`RegionError::Apart`] if this region doesn't reach that one, else as [`KvRegion::gather`].
    pub fn copy_from(
        &self,
        pages: &PageRange<'_>,
        peer: &PeerPages<'_>,
    ) -> Result<(), RegionError> {
        self.as_peer().ok_or(RegionError::Apart)?.copy_from(pages, peer)
    }
}
