//! Marks along a prompt: what is told of prefixes where telling every block would be too much.

use crate::{BlockHash, CommittedBlock};

/// Blocks from one anchor to the next: 256 tokens at 16 a block, a few milliseconds of computing.
pub const ANCHOR_BLOCKS: u32 = 16;

/// A prefix whose length is a multiple of [`ANCHOR_BLOCKS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Anchor {
    /// Blocks of it.
    pub blocks: u32,
    /// The name of the last one, and so of the prefix.
    pub hash: BlockHash,
}

// === impl Anchor ===

impl Anchor {
    /// The prefix that ends with a block, if it is one.
    #[must_use]
    pub fn ending_with(block: CommittedBlock) -> Option<Self> {
        let blocks = block.depth + 1;
        blocks.is_multiple_of(ANCHOR_BLOCKS).then_some(Self { blocks, hash: block.hash })
    }

    /// The anchors of a prompt, by the names of its full blocks from its start.
    pub fn along(names: &[BlockHash]) -> impl Iterator<Item = Self> {
        let ends = (1..).map(|anchor| anchor * ANCHOR_BLOCKS);
        let last = |names: &[BlockHash]| *names.last().expect("a chunk has a last one");
        let hashes = names.chunks_exact(ANCHOR_BLOCKS as usize).map(last);
        ends.zip(hashes).map(|(blocks, hash)| Self { blocks, hash })
    }
}
