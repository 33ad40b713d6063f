//! KV memory on the host: pages that transfers copy while steps run.

use kv_cache::{
    BlockId, BlockRef, Fence, KvDtype, KvLayout, KvRegion, PageRange, PeerPages, RegionError,
};
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::simd::Element;
use super::tensor::{Elements, with_elements};
use crate::config::WeightDtype;

/// All pages of a pool, layer by layer.
///
/// A lock per layer: a step holds one for the time of one operation on that layer, so a transfer
/// waits for microseconds, and never for a step. Which blocks belong to whom is the pool's concern;
/// the lock only keeps reads and writes of the same layer apart.
#[derive(Debug)]
pub(super) struct CpuKv {
    layout: KvLayout,
    blocks: u32,
    layers: Vec<RwLock<Elements>>,
}

/// Where one layer's keys and values lie, for kernels.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageShape {
    kv_heads: usize,
    block_tokens: usize,
    head_dim: usize,
}

// === impl CpuKv ===

impl CpuKv {
    pub(super) fn new(layout: &KvLayout, blocks: u32) -> Self {
        let dtype = match layout.dtype {
            KvDtype::F32 => WeightDtype::F32,
            KvDtype::Bf16 => WeightDtype::Bf16,
            KvDtype::F16 => WeightDtype::F16,
        };
        let elements = layout.page_bytes() / layout.dtype.bytes() * blocks as usize;
        let layers =
            (0..layout.layers).map(|_| RwLock::new(Elements::zeros(dtype, elements))).collect();
        Self { layout: layout.clone(), blocks, layers }
    }

    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    pub(super) fn layer(&self, layer: u32) -> &RwLock<Elements> {
        &self.layers[layer as usize]
    }

    pub(super) fn page_shape(&self) -> PageShape {
        PageShape {
            kv_heads: self.layout.kv_heads as usize,
            block_tokens: self.layout.block_tokens as usize,
            head_dim: self.layout.head_dim as usize,
        }
    }

    pub(super) fn copy_block(&self, from: BlockId, to: BlockId) {
        let page = self.layout.page_bytes();
        for layer in &self.layers {
            let mut elements = layer.write();
            let start = from.index() * page;
            elements.bytes_mut().copy_within(start..start + page, to.index() * page);
        }
    }
}

impl KvRegion for CpuKv {
    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// A step's operation has finished when it returns, so every fence given out has passed.
    fn gather(&self, pages: &PageRange<'_>, _: Fence, out: &mut [u8]) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, out.len())?;
        let page = self.layout.page_bytes();
        let mut out = out.chunks_exact_mut(page);
        for layer in pages.layers.clone() {
            let elements = self.layer(layer).read();
            let bytes = elements.bytes();
            for (block, out) in pages.blocks.iter().zip(&mut out) {
                out.copy_from_slice(&bytes[block.block.index() * page..][..page]);
            }
        }
        Ok(())
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, bytes.len())?;
        let page = self.layout.page_bytes();
        let mut bytes = bytes.chunks_exact(page);
        for layer in pages.layers.clone() {
            let mut elements = self.layer(layer).write();
            let all = elements.bytes_mut();
            for (block, bytes) in pages.blocks.iter().zip(&mut bytes) {
                all[block.block.index() * page..][..page].copy_from_slice(bytes);
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
        let page = self.layout.page_bytes();
        for layer in pages.layers.clone() {
            let (from, mut to) = lock_both(from.layer(layer), self.layer(layer));
            for (source, target) in peer.blocks.iter().zip(pages.blocks) {
                let page_of = |block: &BlockRef| block.block.index() * page..;
                let source = &from.bytes()[page_of(source)][..page];
                to.bytes_mut()[page_of(target)][..page].copy_from_slice(source);
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

// === impl PageShape ===

impl PageShape {
    pub(super) fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Where the keys of a head in a block begin, in elements; `[block_tokens, head_dim]` follow.
    pub(super) fn keys(&self, block: BlockId, head: usize) -> usize {
        (block.index() * 2 * self.kv_heads + head) * self.block_tokens * self.head_dim
    }

    /// Where the values of a head in a block begin.
    pub(super) fn values(&self, block: BlockId, head: usize) -> usize {
        self.keys(block, self.kv_heads + head)
    }

    /// Writes one token's keys and values.
    ///
    /// - `keys`, `values`: `[kv_heads, head_dim]`.
    pub(super) fn write(&self, layer: &mut Elements, slot: Slot, keys: &[f32], values: &[f32]) {
        with_elements!(layer, data => self.write_as(data, slot, keys, values));
    }

    fn write_as<E: Element>(&self, data: &mut [E], slot: Slot, keys: &[f32], values: &[f32]) {
        let dim = self.head_dim;
        for head in 0..self.kv_heads {
            for (start, from) in
                [(self.keys(slot.block, head), keys), (self.values(slot.block, head), values)]
            {
                let to = &mut data[start + slot.offset * dim..][..dim];
                for (to, &from) in to.iter_mut().zip(&from[head * dim..][..dim]) {
                    *to = E::from_f32(from);
                }
            }
        }
    }
}

/// Where one token's keys and values go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) block: BlockId,
    /// Token slot in the block.
    pub(super) offset: usize,
}

#[cfg(test)]
mod tests {
    use kv_cache::BlockVersion;
    use rstest::rstest;

    use super::*;

    fn kv(dtype: KvDtype) -> CpuKv {
        CpuKv::new(&KvLayout { layers: 3, kv_heads: 2, head_dim: 4, block_tokens: 2, dtype }, 5)
    }

    fn refs(blocks: &[u32]) -> Vec<BlockRef> {
        blocks.iter().map(|&b| BlockRef { block: BlockId(b), version: BlockVersion(0) }).collect()
    }

    #[rstest]
    #[case(KvDtype::F32)]
    #[case(KvDtype::Bf16)]
    #[case(KvDtype::F16)]
    fn what_was_scattered_is_gathered_from_the_same_pages_only(#[case] dtype: KvDtype) {
        let kv = kv(dtype);
        let (some, others) = (refs(&[4, 1]), refs(&[0, 2, 3]));
        let pages = PageRange { layers: 1..3, blocks: &some };
        let bytes: Vec<u8> =
            (0..pages.pages() * kv.layout.page_bytes()).map(|i| (i % 251) as u8).collect();
        kv.scatter(&pages, &bytes).unwrap();
        let mut out = vec![0; bytes.len()];
        kv.gather(&pages, Fence(0), &mut out).unwrap();
        assert_eq!(out, bytes);
        let rest = PageRange { layers: 0..3, blocks: &others };
        let mut out = vec![1; rest.pages() * kv.layout.page_bytes()];
        kv.gather(&rest, Fence(0), &mut out).unwrap();
        assert!(out.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn pages_go_from_region_to_region_the_others_stay() {
        let (from, to) = (kv(KvDtype::Bf16), kv(KvDtype::Bf16));
        let (source, target) = (refs(&[4, 1, 0]), refs(&[2, 0, 3]));
        let page = from.layout.page_bytes();
        let whole = PageRange { layers: 0..3, blocks: &source };
        let bytes: Vec<u8> = (0..whole.pages() * page).map(|i| (i % 251) as u8 + 1).collect();
        from.scatter(&whole, &bytes).unwrap();
        let pages = PageRange { layers: 1..3, blocks: &target };
        let peer = PeerPages { region: &from, blocks: &source, fence: Fence(0) };
        assert!(to.reaches(&from));
        to.copy_from(&pages, &peer).unwrap();
        let mut out = vec![0; pages.pages() * page];
        to.gather(&pages, Fence(0), &mut out).unwrap();
        assert_eq!(out, bytes[3 * page..], "layers 1 and 2");
        let rest = PageRange { layers: 0..1, blocks: &refs(&[0, 1, 2, 3, 4]) };
        let mut out = vec![1; rest.pages() * page];
        to.gather(&rest, Fence(0), &mut out).unwrap();
        assert!(out.iter().all(|&byte| byte == 0), "layer 0");
        let few = PeerPages { blocks: &source[1..], ..peer };
        let refused = to.copy_from(&pages, &few);
        assert_eq!(refused, Err(RegionError::Length { got: 6 * page, want: 4 * page }));
    }

    #[test]
    fn a_region_reaches_others_with_its_own_shape_only() {
        let (one, other) = (kv(KvDtype::Bf16), kv(KvDtype::F16));
        assert!(!one.reaches(&other) && !one.reaches(&one), "another shape, and itself");
        let blocks = refs(&[1]);
        let peer = PeerPages { region: &other, blocks: &blocks, fence: Fence(0) };
        let refused = one.copy_from(&PageRange { layers: 0..1, blocks: &blocks }, &peer);
        assert_eq!(refused, Err(RegionError::Apart));
    }

    #[test]
    fn copies_both_ways_at_once_come_to_an_end() {
        let (one, other) = (kv(KvDtype::F32), kv(KvDtype::F32));
        let blocks = refs(&[0, 1, 2, 3, 4]);
        let copy = |to: &CpuKv, from: &CpuKv| {
            for _ in 0..2000 {
                let peer = PeerPages { region: from, blocks: &blocks, fence: Fence(0) };
                to.copy_from(&PageRange { layers: 0..3, blocks: &blocks }, &peer).unwrap();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| copy(&one, &other));
            copy(&other, &one);
        });
    }

    #[rstest]
    #[case::block(0..3, &[5], RegionError::OutOfRange { block: refs(&[5])[0], layer_end: 3 })]
    #[case::layer(2..4, &[1], RegionError::OutOfRange { block: refs(&[1])[0], layer_end: 4 })]
    #[case::length(0..1, &[1], RegionError::Length { got: 7, want: 128 })]
    fn refuses_pages_it_does_not_have(
        #[case] layers: std::ops::Range<u32>,
        #[case] blocks: &[u32],
        #[case] want: RegionError,
    ) {
        let (kv, blocks) = (kv(KvDtype::F32), refs(blocks));
        let pages = PageRange { layers, blocks: &blocks };
        assert_eq!(kv.gather(&pages, Fence(0), &mut [0; 7]), Err(want.clone()));
        assert_eq!(kv.scatter(&pages, &[0; 7]), Err(want));
    }

    #[test]
    fn a_written_token_lies_where_the_layout_says() {
        let kv = kv(KvDtype::F32);
        let (keys, values): (Vec<_>, Vec<_>) = ((0..8).map(|i| i as f32).collect(), vec![9.0; 8]);
        let slot = Slot { block: BlockId(2), offset: 1 };
        kv.page_shape().write(&mut kv.layer(0).write(), slot, &keys, &values);
        let blocks = refs(&[2]);
        let mut out = vec![0; kv.layout.page_bytes()];
        kv.gather(&PageRange { layers: 0..1, blocks: &blocks }, Fence(0), &mut out).unwrap();
        let page: Vec<f32> =
            out.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        // [2 (keys, values), kv_heads, block_tokens, head_dim]
        let mut want = [0.0; 32];
        want[4..8].copy_from_slice(&keys[..4]);
        want[12..16].copy_from_slice(&keys[4..]);
        want[20..24].fill(9.0);
        want[28..32].fill(9.0);
        assert_eq!(page, want);
    }

    #[test]
    fn a_copied_block_equals_its_source_in_every_layer() {
        let kv = kv(KvDtype::Bf16);
        let (from, to) = (refs(&[1]), refs(&[3]));
        let pages = PageRange { layers: 0..3, blocks: &from };
        let bytes: Vec<u8> = (0..pages.pages() * kv.layout.page_bytes()).map(|i| i as u8).collect();
        kv.scatter(&pages, &bytes).unwrap();
        kv.copy_block(BlockId(1), BlockId(3));
        let mut out = vec![0; bytes.len()];
        kv.gather(&PageRange { layers: 0..3, blocks: &to }, Fence(0), &mut out).unwrap();
        assert_eq!(out, bytes);
    }
}
