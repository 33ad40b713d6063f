//! KV memory of the CPU backend: pages that transfers copy while steps run, as arrays of numbers.

use kv_cache::{BlockId, HostRegion, KvLayout};

use super::simd::FromFloat;
use super::tensor::{Elements, with_elements};
use crate::error::EngineError;
use crate::weights::WeightDtype;

/// All pages of a pool, layer by layer.
pub(super) type CpuKv = HostRegion<Elements>;

/// Where one layer's keys and values lie, for kernels, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageShape {
    kv_heads: usize,
    block_tokens: usize,
    head_dim: usize,
    /// From one block's page to the next one's, from one head to the next, from keys to values.
    page: usize,
    head: usize,
    values: usize,
}

/// Zeroed pages.
///
/// # Errors
/// [`EngineError::Limits`] for a codec that isn't read here.
pub(super) fn pool(layout: &KvLayout, blocks: u32) -> Result<CpuKv, EngineError> {
    let dtype = element_of(layout)?;
    let zeros = |bytes| Elements::zeros(dtype, bytes / dtype.bytes());
    Ok(HostRegion::with_memory(layout.clone(), blocks, zeros))
}

/// Attention reads keys and values, one by one.
fn element_of(layout: &KvLayout) -> Result<WeightDtype, EngineError> {
    let dtype = WeightDtype::kept_in(&layout.codec).filter(|_| layout.page.vectors == 2);
    dtype.ok_or_else(|| EngineError::Limits {
        field: "kv_dtype".to_owned(),
        reason: format!("pages in {} are not read on a CPU: want plain floats", layout.codec),
    })
}

// === impl PageShape ===

impl PageShape {
    /// Of a pool made by [`pool`].
    pub(super) fn new(layout: &KvLayout) -> Self {
        let elements = |bytes: usize| bytes * 8 / layout.codec.numbers.bits() as usize;
        Self {
            kv_heads: layout.kv_heads() as usize,
            block_tokens: layout.block_tokens() as usize,
            head_dim: layout.head_dim() as usize,
            page: elements(layout.page_bytes()),
            head: elements(layout.numbers_at(0, 1).start),
            values: elements(layout.numbers_at(1, 0).start),
        }
    }

    pub(super) fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Where the keys of a head in a block begin; `[block_tokens, head_dim]` follow.
    pub(super) fn keys(&self, block: BlockId, head: usize) -> usize {
        block.index() * self.page + head * self.head
    }

    /// Where the values of a head in a block begin.
    pub(super) fn values(&self, block: BlockId, head: usize) -> usize {
        self.keys(block, head) + self.values
    }

    /// Writes one token's keys and values.
    ///
    /// - `keys`, `values`: `[kv_heads, head_dim]`.
    pub(super) fn write(&self, layer: &mut Elements, slot: Slot, keys: &[f32], values: &[f32]) {
        with_elements!(layer, data => self.write_as(data, slot, keys, values));
    }

    fn write_as<E: FromFloat>(&self, data: &mut [E], slot: Slot, keys: &[f32], values: &[f32]) {
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
    use std::sync::Arc;

    use kv_cache::region::conformance::{Subject, conformance};
    use kv_cache::{BlockPool, KvRegion as _, PageRange};
    use kv_cache::{Fence, KvCodec, Numbers, Scales};

    use super::*;

    fn layout(codec: KvCodec) -> KvLayout {
        KvLayout::whole(3, 2, kv_cache::PageShape::keys_and_values(4, 2), codec)
    }

    #[test]
    fn pages_of_numbers_conform() {
        conformance(&KvCodec::ALL.map(layout), |layout, blocks| Subject {
            region: Arc::new(pool(layout, blocks).unwrap()),
            fence: Box::new(Fence::default),
        });
    }

    #[test]
    fn pages_that_are_no_arrays_are_refused() {
        let numbers = Numbers { exponent_bits: 0, fraction_bits: 7 };
        let scales = Some(Scales { bits: 32, group: 4 });
        let refused = pool(&layout(KvCodec { name: "int8", numbers, scales }), 1).unwrap_err();
        assert!(refused.to_string().contains("pages in int8"), "{refused}");
        let latent = kv_cache::PageShape { vectors: 1, head_dim: 4, block_tokens: 2 };
        assert!(pool(&KvLayout::whole(1, 1, latent, KvCodec::F32), 1).is_err());
    }

    #[test]
    fn a_written_token_lies_where_the_layout_says() {
        let kv = pool(&layout(KvCodec::F32), 5).unwrap();
        let block = BlockPool::new(5, 2).reserve(1).unwrap().bind().unwrap().reference();
        let (keys, values): (Vec<_>, Vec<_>) = ((0..8).map(|i| i as f32).collect(), vec![9.0; 8]);
        let slot = Slot { block: block.block, offset: 1 };
        PageShape::new(kv.layout()).write(&mut kv.layer(0).write(), slot, &keys, &values);
        let mut out = vec![0; kv.layout().page_bytes()];
        kv.gather(&PageRange { layers: 0..1, blocks: &[block] }, Fence(0), &mut out).unwrap();
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
        let kv = pool(&layout(KvCodec::BF16), 5).unwrap();
        let mut credit = BlockPool::new(5, 2).reserve(2).unwrap();
        let [from, to] = [0, 1].map(|_| credit.bind().unwrap());
        let [from, to] = [from.reference(), to.reference()];
        let pages = PageRange { layers: 0..3, blocks: &[from] };
        let bytes: Vec<u8> =
            (0..pages.pages() * kv.layout().page_bytes()).map(|i| i as u8).collect();
        kv.scatter(&pages, &bytes).unwrap();
        kv.copy_block(from.block, to.block);
        let mut out = vec![0; bytes.len()];
        kv.gather(&PageRange { layers: 0..3, blocks: &[to] }, Fence(0), &mut out).unwrap();
        assert_eq!(out, bytes);
    }
}
