//! The order of pages: by layer where a region copies them, by block where a tier keeps them.

use kv_cache::KvLayout;

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

    /// Blocks of so many bytes, at least one.
    pub(super) fn blocks_of(&self, bytes: usize) -> usize {
        (bytes / self.block_bytes()).max(1)
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
    fn a_block_is_taken_out_of_what_a_region_gave() {
        let layout = KvLayout::whole(3, 1, PageShape::keys_and_values(2, 2), KvCodec::F32);
        let (order, page) = (PageOrder::of(&layout), layout.page_bytes());
        // [layers, blocks, page], of two blocks: each page is its number.
        let joined: Vec<u8> = (0..6).flat_map(|number| vec![number; page]).collect();
        let mut out = vec![0; order.block_bytes()];
        order.take(&joined, 2, 1, &mut out);
        assert_eq!(out, [1, 3, 5].map(|number| vec![number; page]).concat());
    }
}
