//! The shape of KV memory: what is in a page, and how many bytes it has.

use std::fmt;
use std::ops::Range;

/// The element type of cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// 32-bit float: the oracle's choice for fp32 weights.
    F32,
    /// bfloat16: the default.
    Bf16,
    /// IEEE half.
    F16,
}

/// The shape of one model's KV cache, equal on both sides of a hand-off.
///
/// A *page* is one layer's part of a block and the unit on the wire:
/// `[2 (keys, values), kv_heads, block_tokens, head_dim]`, contiguous, little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    /// Transformer layers.
    pub layers: u32,
    /// Key/value heads of a layer.
    pub kv_heads: u32,
    /// Elements of one head's key or value.
    pub head_dim: u32,
    /// Token slots of a block.
    pub block_tokens: u32,
    /// Element type.
    pub dtype: KvDtype,
}

/// The pages of consecutive layers for a list of blocks: the unit of one copy.
///
/// Bytes are ordered layer first, then block in the order of `blocks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRange<'a> {
    /// Layers `start..end`.
    pub layers: Range<u32>,
    /// Physical blocks.
    pub blocks: &'a [crate::BlockRef],
}

// === impl KvDtype ===

impl KvDtype {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The name used in configuration and in fingerprints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl KvLayout ===

impl KvLayout {
    /// Bytes of one page.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        2 * self.kv_heads as usize
            * self.block_tokens as usize
            * self.head_dim as usize
            * self.dtype.bytes()
    }

    /// Bytes of one block: its pages in all layers.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.layers as usize * self.page_bytes()
    }

    /// Blocks that hold `tokens` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens as usize)
    }
}

/// The form in a fingerprint: two layouts are equal if and only if they read the same.
impl fmt::Display for KvLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, kv_heads, head_dim, block_tokens, dtype } = self;
        write!(f, "layers={layers} kv_heads={kv_heads} head_dim={head_dim} ")?;
        write!(f, "block_tokens={block_tokens} dtype={dtype}")
    }
}

// === impl PageRange ===

impl PageRange<'_> {
    /// Pages in the range.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.layers.len() * self.blocks.len()
    }
}
