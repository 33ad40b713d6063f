//! The order of pages: by layer where a region copies them, by block where a tier keeps them.

use std::sync::Arc;

use kv_cache::KvLayout;
use rayon::prelude::*;

/// The sizes that both orders are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageOrder {
    layers: usize,
    page_bytes: usize,
}

// === impl PageOrder ===

impl PageOrder {
    pub(super) fn of(layout: &KvLayout) -> Self {
        Self { layers: layout.layers() as usize, page_bytes: layout.page_bytes() }
    }

    /// Bytes of a block in all layers.
    pub(super) fn block_bytes(&self) -> usize {
        self.layers * self.page_bytes
    }

    /// Blocks that are copied at a time.
    pub(super) fn group(&self) -> usize {
        (super::GROUP_BYTES / self.block_bytes()).max(1)
    }

    /// Puts blocks together.
    ///
    /// - `blocks`: each `[layers, page]`.
    /// - `out`: `[layers, blocks, page]`.
    pub(super) fn join(&self, blocks: &[Arc<Vec<u8>>], out: &mut [u8]) {
        let page = self.page_bytes;
        out.par_chunks_mut(blocks.len() * page).enumerate().for_each(|(layer, out)| {
            for (block, out) in blocks.iter().zip(out.chunks_exact_mut(page)) {
                out.copy_from_slice(&block[layer * page..][..page]);
            }
        });
    }

    /// Takes one of several blocks out.
    ///
    /// - `joined`: `[layers, blocks, page]`.
    /// - `out`: `[layers, page]`.
    pub(super) fn take(&self, joined: &[u8], blocks: usize, index: usize, out: &mut [u8]) {
        let page = self.page_bytes;
        for (layer, out) in joined.chunks_exact(blocks * page).zip(out.chunks_exact_mut(page)) {
            out.copy_from_slice(&layer[index * page..][..page]);
        }
    }
}

#[cfg(test)]
mod tests {
    use kv_cache::{KvCodec, PageShape};

    use super::*;

    #[test]
    fn what_is_joined_comes_out_again() {
        let layout = KvLayout::whole(3, 1, PageShape::keys_and_values(2, 2), KvCodec::F32);
        let order = PageOrder::of(&layout);
        let block =
            |seed: u8| Arc::new((0..order.block_bytes()).map(|at| at as u8 ^ seed).collect());
        let blocks: Vec<Arc<Vec<u8>>> = [1, 77, 200].map(block).into();
        let mut joined = vec![0; 3 * order.block_bytes()];
        order.join(&blocks, &mut joined);
        // [layers, blocks, page]
        assert_eq!(joined[layout.page_bytes()..][..8], blocks[1][..8]);
        for (index, block) in blocks.iter().enumerate() {
            let mut out = vec![0; order.block_bytes()];
            order.take(&joined, blocks.len(), index, &mut out);
            assert_eq!(out, **block);
        }
    }
}
