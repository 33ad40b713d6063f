//! What KV memory looks like: a page's shape, how its numbers are written, and which part of a model's
//! cache it is.

mod codec;
mod fit;
mod shard;
mod text;

pub use codec::{KvCodec, Numbers, Scales};
pub use fit::{Conversion, Misfit};
pub use shard::{Held, KvShard};
pub use text::BadLayout;

use std::ops::Range;

/// What one pool holds of a model's KV cache, and how.
///
/// A *page* is one layer's part of a block and the unit on the wire, contiguous and little-endian: first
/// the numbers, `[vectors, heads, block_tokens, head_dim]`, then the scales, if the codec has any,
/// `[vectors, heads, block_tokens, head_dim / group]`. So a head's vectors follow each other, and its
/// scales do, wherever the codec puts them for others.
///
/// Whether one pool's pages can be another's is asked of the layouts: [`KvLayout::fits`],
/// [`KvLayout::converts_to`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvLayout {
    /// The layers and heads of the model that are here.
    pub shard: KvShard,
    /// What a token leaves in a page.
    pub page: PageShape,
    /// How numbers are written.
    pub codec: KvCodec,
}

/// What is in a page, whatever it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageShape {
    /// Vectors that a token leaves in each head: two, its key and its value, or one that stands for both.
    pub vectors: u32,
    /// Numbers of a vector.
    pub head_dim: u32,
    /// Token slots of a block.
    pub block_tokens: u32,
}

// === impl PageShape ===

impl PageShape {
    /// Pages with a key and a value of `head_dim` numbers for each head and token.
    #[must_use]
    pub const fn keys_and_values(head_dim: u32, block_tokens: u32) -> Self {
        Self { vectors: 2, head_dim, block_tokens }
    }
}

// === impl KvLayout ===

impl KvLayout {
    /// A whole model's cache.
    ///
    /// - `layers`, `kv_heads`: of the model.
    #[must_use]
    pub const fn whole(layers: u32, kv_heads: u32, page: PageShape, codec: KvCodec) -> Self {
        let shard = KvShard { layers: Held::all(layers), heads: Held::all(kv_heads) };
        Self { shard, page, codec }
    }

    /// Layers that are here, each with a page of every block.
    #[must_use]
    pub const fn layers(&self) -> u32 {
        self.shard.layers.count
    }

    /// Heads that are here, in every page.
    #[must_use]
    pub const fn kv_heads(&self) -> u32 {
        self.shard.heads.count
    }

    /// Numbers of a head's key or value.
    #[must_use]
    pub const fn head_dim(&self) -> u32 {
        self.page.head_dim
    }

    /// Token slots of a block.
    #[must_use]
    pub const fn block_tokens(&self) -> u32 {
        self.page.block_tokens
    }

    /// Bytes of one page.
    #[must_use]
    pub const fn page_bytes(&self) -> usize {
        self.runs() * (self.numbers_bytes() + self.scales_bytes())
    }

    /// Bytes of one block: its pages in all layers.
    #[must_use]
    pub const fn block_bytes(&self) -> usize {
        self.layers() as usize * self.page_bytes()
    }

    /// Blocks that hold `tokens` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens() as usize)
    }

    /// Where in a page the numbers of one head are: bytes of `[block_tokens, head_dim]`.
    ///
    /// - `vector`: which of each token's, 0 for keys and 1 for values.
    /// - `head`: of those that are here.
    #[must_use]
    pub const fn numbers_at(&self, vector: u32, head: u32) -> Range<usize> {
        let start = self.run(vector, head) * self.numbers_bytes();
        start..start + self.numbers_bytes()
    }

    /// Where in a page the scales of one head are: bytes of `[block_tokens, head_dim / group]`, none where
    /// the codec has none.
    ///
    /// - `vector`, `head`: as in [`KvLayout::numbers_at`].
    #[must_use]
    pub const fn scales_at(&self, vector: u32, head: u32) -> Range<usize> {
        let numbers = self.runs() * self.numbers_bytes();
        let start = numbers + self.run(vector, head) * self.scales_bytes();
        start..start + self.scales_bytes()
    }

    /// One head's vectors of one kind for all tokens of a block: what lies together in a page.
    const fn runs(&self) -> usize {
        self.run(self.page.vectors, 0)
    }

    const fn run(&self, vector: u32, head: u32) -> usize {
        vector as usize * self.kv_heads() as usize + head as usize
    }

    const fn numbers_bytes(&self) -> usize {
        self.block_tokens() as usize * self.codec.vector_bytes(self.head_dim() as usize)
    }

    const fn scales_bytes(&self) -> usize {
        self.block_tokens() as usize * self.codec.scale_bytes(self.head_dim() as usize)
    }
}

#[cfg(test)]
mod tests;
