//! KV memory on the host, for tests, benchmarks and whoever keeps pages in main memory.

use kv_cache::{BlockRef, Fence, KvLayout, KvRegion, PageRange, PeerPages, RegionError};
use parking_lot::RwLock;

/// Pages in main memory.
pub struct HostRegion {
    layout: KvLayout,
    blocks: u32,
    /// `[layers][blocks, page_bytes]`.
    layers: Vec<RwLock<Vec<u8>>>,
}

// === impl HostRegion ===

impl HostRegion {
    /// Zeroed pages for `blocks` blocks.
    #[must_use]
    pub fn new(layout: KvLayout, blocks: u32) -> Self {
        let layer_bytes = blocks as usize * layout.page_bytes();
        let layers = (0..layout.layers).map(|_| RwLock::new(vec![0; layer_bytes])).collect();
        Self { layout, blocks, layers }
    }

    fn page_start(&self, block: BlockRef) -> usize {
        block.block.index() * self.layout.page_bytes()
    }
}

impl KvRegion for HostRegion {
    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    fn gather(&self, pages: &PageRange<'_>, _: Fence, out: &mut [u8]) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, out.len())?;
        let mut rows = out.chunks_exact_mut(self.layout.page_bytes());
        for layer in pages.layers.clone() {
            let memory = self.layers[layer as usize].read();
            for (&block, out) in pages.blocks.iter().zip(&mut rows) {
                let start = self.page_start(block);
                out.copy_from_slice(&memory[start..start + out.len()]);
            }
        }
        Ok(())
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, bytes.len())?;
        let mut rows = bytes.chunks_exact(self.layout.page_bytes());
        for layer in pages.layers.clone() {
            let mut memory = self.layers[layer as usize].write();
            for (&block, page) in pages.blocks.iter().zip(&mut rows) {
                let start = self.page_start(block);
                memory[start..start + page.len()].copy_from_slice(page);
            }
        }
        Ok(())
    }

    fn reaches(&self, peer: &dyn KvRegion) -> bool {
        peer.twin_of(self).is_some()
    }

    fn copy_from(&self, pages: &PageRange<'_>, peer: &PeerPages<'_>) -> Result<(), RegionError> {
        let from = peer.region.twin_of(self).ok_or(RegionError::Apart)?;
        peer.check(pages, &self.layout, (self.blocks, from.blocks))?;
        let page_bytes = self.layout.page_bytes();
        let mut page = vec![0; page_bytes];
        for layer in pages.layers.clone() {
            let layer = layer as usize;
            for (&source, &target) in peer.blocks.iter().zip(pages.blocks) {
                // By way of a page, so that no lock is held while another is waited for.
                let (source, target) = (from.page_start(source), self.page_start(target));
                page.copy_from_slice(&from.layers[layer].read()[source..source + page_bytes]);
                self.layers[layer].write()[target..target + page_bytes].copy_from_slice(&page);
            }
        }
        Ok(())
    }
}
