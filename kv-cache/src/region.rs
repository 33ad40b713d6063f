//! The memory that holds a pool's pages, seen from outside the engine.

use std::any::Any;
use std::sync::Arc;

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
pub trait KvRegion: Any + Send + Sync {
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

    /// Who makes the calls that may block, if the caller's blocking threads shouldn't: in a simulation
    /// a copy takes virtual time, and no thread.
    fn offload(&self) -> Option<Offload> {
        None
    }

    /// Whether [`KvRegion::copy_from`] can copy pages of `peer`: another region in the same memory,
    /// with pages of the same shape.
    fn reaches(&self, peer: &dyn KvRegion) -> bool {
        let _ = peer;
        false
    }

    /// Copies pages of another region into `pages`, from memory to memory, after the fence has
    /// passed there; the result is visible to steps that begin after it returns.
    ///
    /// - `peer`: as many blocks as `pages` has, each for the one in its place; the same layers.
    ///
    /// # Errors
    /// [`RegionError::Apart`] if this region doesn't reach that one, else as [`KvRegion::gather`].
    fn copy_from(&self, pages: &PageRange<'_>, peer: &PeerPages<'_>) -> Result<(), RegionError> {
        let _ = (pages, peer);
        Err(RegionError::Apart)
    }
}

/// Work that may block, and whoever has it done. It goes on to its end, whoever waits for it.
pub type Offload = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// Pages of another region.
#[derive(Clone, Copy)]
pub struct PeerPages<'a> {
    /// Whose.
    pub region: &'a dyn KvRegion,
    /// Its physical blocks.
    pub blocks: &'a [BlockRef],
    /// Behind the writes, on that region's timeline.
    pub fence: Fence,
}

// === impl KvRegion ===

impl dyn KvRegion {
    /// The region as what it is, if it is a `T`.
    #[must_use]
    pub fn downcast<T: KvRegion>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }

    /// The region as a `T`, if it is one other than `region`, with pages of the same shape.
    #[must_use]
    pub fn twin_of<T: KvRegion>(&self, region: &T) -> Option<&T> {
        let twin = self.downcast::<T>()?;
        (!std::ptr::eq(twin, region) && twin.layout() == region.layout()).then_some(twin)
    }
}

// === impl PeerPages ===

impl PeerPages<'_> {
    /// Checks that two regions of one layout have the pages to copy, as many on either side.
    ///
    /// - `blocks`: of the region that `pages` are of, and of the peer.
    ///
    /// # Errors
    /// As [`PageRange::check`].
    pub fn check(
        &self,
        pages: &PageRange<'_>,
        layout: &KvLayout,
        blocks: (u32, u32),
    ) -> Result<(), RegionError> {
        let bytes = pages.pages() * layout.page_bytes();
        pages.check(layout, blocks.0, bytes)?;
        let source = PageRange { layers: pages.layers.clone(), blocks: self.blocks };
        source.check(layout, blocks.1, bytes)
    }
}

impl std::fmt::Debug for PeerPages<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerPages")
            .field("blocks", &self.blocks)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
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
    /// Neither region reaches the other's memory.
    #[error("pages of the two regions can't be copied from memory to memory")]
    Apart,
    /// The device failed.
    #[error("device copy failed: {0}")]
    Device(String),
}
