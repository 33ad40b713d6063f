//! The memory that holds a pool's pages, seen from outside the engine.

use crate::{BlockRef, KvLayout, PageRange};

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
pub trait KvRegion: Send + Sync + 'static {
    /// The shape of every page in this region.
    fn layout(&self) -> &KvLayout;

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
}

// === impl PageRange ===

impl PageRange<'_> {
    /// Checks that a region of `blocks` blocks has these pages, and that `bytes` is what they take.
    ///
    /// # Errors
    /// [`RegionError::OutOfRange`] for a block or layer that it doesn't have, else
    /// [`RegionError::Length`].
    pub fn check(&self, layout: &KvLayout, blocks: u32, bytes: usize) -> Result<(), RegionError> {
        let layer_end = self.layers.end;
        let foreign =
            self.blocks.iter().find(|block| block.block.0 >= blocks || layer_end > layout.layers);
        if let Some(&block) = foreign {
            return Err(RegionError::OutOfRange { block, layer_end });
        }
        let want = self.pages() * layout.page_bytes();
        if bytes == want { Ok(()) } else { Err(RegionError::Length { got: bytes, want }) }
    }
}

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
    /// The device failed.
    #[error("device copy failed: {0}")]
    Device(String),
}
