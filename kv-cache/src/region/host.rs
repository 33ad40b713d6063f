//! KV memory on the host.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Fence, Kin, KvRegion, PageRange, PeerRegion, RegionError};
use crate::{BlockId, BlockRef, KvLayout};

/// Pages in main memory, layer by layer.
///
/// A lock per layer: a step holds one for the time of one operation on that layer, so a transfer
/// waits for microseconds, and never for a step. Which blocks belong to whom is the pool's concern;
/// the lock only keeps reads and writes of the same layer apart.
///
/// - `M`: what a layer's pages are kept in, for whoever computes with them: bytes, or numbers.
#[derive(Debug)]
pub struct HostRegion<M = Vec<u8>> {
    layout: KvLayout,
    blocks: u32,
    /// `[layers][blocks, page_bytes]`.
    layers: Vec<RwLock<M>>,
}

// === impl HostRegion ===

impl HostRegion {
    /// Zeroed pages for `blocks` blocks.
    #[must_use]
    pub fn new(layout: KvLayout, blocks: u32) -> Self {
        Self::with_memory(layout, blocks, |bytes| vec![0; bytes])
    }
}

impl<M: AsRef<[u8]> + AsMut<[u8]>> HostRegion<M> {
    /// Pages for `blocks` blocks in memory of the caller's.
    ///
    /// - `memory`: makes one layer's, of so many bytes.
    #[must_use]
    pub fn with_memory(layout: KvLayout, blocks: u32, memory: impl Fn(usize) -> M) -> Self {
        let layer_bytes = blocks as usize * layout.page_bytes();
        let layers = (0..layout.layers()).map(|_| RwLock::new(memory(layer_bytes))).collect();
        Self { layout, blocks, layers }
    }

    /// Blocks of each layer.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// One layer's pages, `[blocks, page_bytes]`.
    ///
    /// # Panics
    /// If the region doesn't have it.
    #[must_use]
    pub fn layer(&self, layer: u32) -> &RwLock<M> {
        &self.layers[layer as usize]
    }

    /// Copies a block to another, in all layers.
    ///
    /// # Panics
    /// If the region doesn't have both.
    pub fn copy_block(&self, from: BlockId, to: BlockId) {
        let page = self.layout.page_bytes();
        for layer in &self.layers {
            let mut memory = layer.write();
            let start = from.index() * page;
            memory.as_mut().copy_within(start..start + page, to.index() * page);
        }
    }
}

impl<M: AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static> KvRegion for HostRegion<M> {
    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// A step's operation has finished when it returns, so every fence given out has passed.
    fn gather(&self, pages: &PageRange<'_>, _: Fence, out: &mut [u8]) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, out.len())?;
        let page = self.layout.page_bytes();
        let mut out = out.chunks_exact_mut(page);
        for layer in pages.layers.clone() {
            let memory = self.layer(layer).read();
            let all = memory.as_ref();
            for (block, out) in pages.blocks.iter().zip(&mut out) {
                out.copy_from_slice(&all[block.block.index() * page..][..page]);
            }
        }
        Ok(())
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, bytes.len())?;
        let page = self.layout.page_bytes();
        let mut bytes = bytes.chunks_exact(page);
        for layer in pages.layers.clone() {
            let mut memory = self.layer(layer).write();
            let all = memory.as_mut();
            for (block, bytes) in pages.blocks.iter().zip(&mut bytes) {
                all[block.block.index() * page..][..page].copy_from_slice(bytes);
            }
        }
        Ok(())
    }

    fn as_peer(&self) -> Option<&dyn PeerRegion> {
        Some(self)
    }
}

impl<M: AsRef<[u8]> + AsMut<[u8]> + Send + Sync + 'static> Kin for HostRegion<M> {
    fn blocks(&self) -> u32 {
        self.blocks
    }

    fn shares_memory_with(&self, _: &Self) -> bool {
        true
    }

    fn copy_from_kin(
        &self,
        pages: &PageRange<'_>,
        peer: &Self,
        (blocks, _): (&[BlockRef], Fence),
    ) -> Result<(), RegionError> {
        let page = self.layout.page_bytes();
        for layer in pages.layers.clone() {
            let (from, mut to) = lock_both(peer.layer(layer), self.layer(layer));
            for (source, target) in blocks.iter().zip(pages.blocks) {
                let page_of = |block: &BlockRef| block.block.index() * page..;
                let source = &from.as_ref()[page_of(source)][..page];
                to.as_mut()[page_of(target)][..page].copy_from_slice(source);
            }
        }
        Ok(())
    }
}

/// Takes both locks, the one at the lower address first: copies between the same two regions in
/// opposite directions don't wait for each other for ever.
fn lock_both<'a, T>(
    from: &'a RwLock<T>,
    to: &'a RwLock<T>,
) -> (RwLockReadGuard<'a, T>, RwLockWriteGuard<'a, T>) {
    if std::ptr::from_ref(from) < std::ptr::from_ref(to) {
        let from = from.read();
        (from, to.write())
    } else {
        let to = to.write();
        (from.read(), to)
    }
}
