//! Regions of one kind that reach each other, from memory to memory.

use std::any::Any;

use super::{Fence, KvRegion, PageRange, RegionError};
use crate::BlockRef;

/// A region that others of its kind reach.
///
/// Kinds of memory say what they have to in [`Kin`], and get this from it. Whoever puts another region in
/// front of its own passes these calls on.
pub trait PeerRegion: Any + KvRegion {
    /// Whether [`PeerRegion::copy_from`] can copy pages of `peer`: another region in the same memory, with
    /// pages of the same layout.
    fn reaches(&self, peer: &dyn KvRegion) -> bool;

    /// As `copy_from` of [`dyn KvRegion`](trait@KvRegion).
    ///
    /// # Errors
    /// [`RegionError::Apart`] if this region doesn't reach that one, else as [`KvRegion::gather`].
    fn copy_from(&self, pages: &PageRange<'_>, peer: &PeerPages<'_>) -> Result<(), RegionError>;
}

/// A kind of memory whose regions reach each other: what it alone knows. Who is kin, and which pages there
/// are, has been found out when it is asked.
pub trait Kin: KvRegion + Sized + 'static {
    /// Blocks of the region.
    fn blocks(&self) -> u32;

    /// Whether `other` is in the same memory.
    fn shares_memory_with(&self, other: &Self) -> bool;

    /// Copies pages of `peer`, which are there, into `pages`, which are, too, after the fence has passed.
    ///
    /// - `blocks`: of `peer`, each for the one in its place.
    ///
    /// # Errors
    /// [`RegionError::Device`] if the copy failed.
    fn copy_from_kin(
        &self,
        pages: &PageRange<'_>,
        peer: &Self,
        from: (&[BlockRef], Fence),
    ) -> Result<(), RegionError>;
}

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

// === impl PeerRegion ===

impl<T: Kin> PeerRegion for T {
    fn reaches(&self, peer: &dyn KvRegion) -> bool {
        kin_of(self, peer).is_some()
    }

    fn copy_from(&self, pages: &PageRange<'_>, peer: &PeerPages<'_>) -> Result<(), RegionError> {
        let from = kin_of(self, peer.region).ok_or(RegionError::Apart)?;
        let bytes = pages.pages() * self.layout().page_bytes();
        pages.check(self.layout(), self.blocks(), bytes)?;
        let source = PageRange { layers: pages.layers.clone(), blocks: peer.blocks };
        source.check(self.layout(), from.blocks(), bytes)?;
        self.copy_from_kin(pages, from, (peer.blocks, peer.fence))
    }
}

/// `other`, if it is another region of the kind, in the same memory and of a layout that fits.
fn kin_of<'a, T: Kin>(region: &T, other: &'a dyn KvRegion) -> Option<&'a T> {
    let other: &dyn Any = other.as_peer()?;
    let other: &T = other.downcast_ref()?;
    let fits = !std::ptr::eq(other, region) && other.layout().fits(region.layout()).is_ok();
    (fits && region.shares_memory_with(other)).then_some(other)
}

// === impl PeerPages ===

impl std::fmt::Debug for PeerPages<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerPages")
            .field("blocks", &self.blocks)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
}
