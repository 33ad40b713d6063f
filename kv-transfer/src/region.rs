//! KV memory on the host, for tests, benchmarks and whoever keeps pages in main memory.

use kv_cache::{Fence, KvLayout, KvRegion, PageRange, RegionError};
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

    fn check(&self, pages: &PageRange<'_>, got: usize) -> Result<(), RegionError> {
        let want = pages.pages() * self.layout.page_bytes();
        if got != want {
            return Err(RegionError::Length { got, want });
        }
        let layer_end = pages.layers.end;
        let outside = |block: &&kv_cache::BlockRef| {
            block.block.0 >= self.blocks || layer_end > self.layout.layers
        };
        match pages.blocks.iter().find(outside) {
            Some(&block) => Err(RegionError::OutOfRange { block, layer_end }),
            None => Ok(()),
        }
    }

    fn page_start(&self, block: kv_cache::BlockRef) -> usize {
        block.block.index() * self.layout.page_bytes()
    }
}

impl KvRegion for HostRegion {
    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    fn gather(&self, pages: &PageRange<'_>, _: Fence, out: &mut [u8]) -> Result<(), RegionError> {
        self.check(pages, out.len())?;
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
        self.check(pages, bytes.len())?;
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
}
