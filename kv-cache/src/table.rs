//! A sequence's map from logical to physical blocks.

use crate::{BlockHandle, BlockId};

/// The blocks of one sequence, in order, and how many of their token slots are filled.
///
/// Dropped from the last block to the first: a prefix is released after whatever continues it, so
/// it is also evicted after it and no cached block is ever cut off from its parent.
#[derive(Debug)]
pub struct BlockTable {
    blocks: Vec<BlockHandle>,
    /// Of `blocks`: what a step reads each time.
    ids: Vec<BlockId>,
    tokens: usize,
    block_tokens: usize,
}

// === impl BlockTable ===

impl BlockTable {
    /// An empty table over blocks of `block_tokens` token slots.
    ///
    /// # Panics
    /// If `block_tokens` is 0.
    #[must_use]
    pub fn new(block_tokens: u32) -> Self {
        assert!(block_tokens > 0, "a block has at least one token slot");
        Self { blocks: Vec::new(), ids: Vec::new(), tokens: 0, block_tokens: block_tokens as usize }
    }

    /// A table over a matched prefix: full blocks, all filled.
    #[must_use]
    pub fn from_prefix(block_tokens: u32, prefix: Vec<BlockHandle>) -> Self {
        let mut table = Self::new(block_tokens);
        table.tokens = prefix.len() * table.block_tokens;
        table.ids = prefix.iter().map(BlockHandle::id).collect();
        table.blocks = prefix;
        table
    }

    /// Adds a block after the last one.
    pub fn push(&mut self, block: BlockHandle) {
        self.ids.push(block.id());
        self.blocks.push(block);
    }

    /// The blocks, in logical order.
    #[must_use]
    pub fn blocks(&self) -> &[BlockHandle] {
        &self.blocks
    }

    /// The blocks' ids, in logical order: what a batch carries.
    #[must_use]
    pub fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// Filled token slots.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Token slots that the blocks have.
    #[must_use]
    pub fn capacity_tokens(&self) -> usize {
        self.blocks.len() * self.block_tokens
    }

    /// Blocks to push before `tokens` more tokens fit.
    #[must_use]
    pub fn blocks_missing(&self, tokens: usize) -> usize {
        (self.tokens + tokens).div_ceil(self.block_tokens).saturating_sub(self.blocks.len())
    }

    /// Blocks that are full where the first `tokens` slots are.
    #[must_use]
    pub fn full_blocks(&self, tokens: usize) -> usize {
        tokens / self.block_tokens
    }

    /// Says that `tokens` slots are filled.
    ///
    /// # Panics
    /// If the blocks don't have that many.
    pub fn set_tokens(&mut self, tokens: usize) {
        let capacity = self.capacity_tokens();
        assert!(tokens <= capacity, "{tokens} tokens in {capacity} slots");
        self.tokens = tokens;
    }

    /// Says that `tokens` more slots are filled.
    ///
    /// # Panics
    /// As [`BlockTable::set_tokens`].
    pub fn advance(&mut self, tokens: usize) {
        self.set_tokens(self.tokens + tokens);
    }

    /// The physical slot of the token at `position`: `block * block_tokens + offset`.
    ///
    /// # Panics
    /// If the blocks don't reach that far.
    #[must_use]
    pub fn slot(&self, position: usize) -> usize {
        let block = self.ids[position / self.block_tokens];
        block.index() * self.block_tokens + position % self.block_tokens
    }

    /// The logical block that the next token's slot is in; it may have to be pushed first.
    #[must_use]
    pub fn next_block(&self) -> usize {
        self.tokens / self.block_tokens
    }

    /// Whether the next token's slot is in a block that may not be written: one shared with another
    /// sequence or published. Copy it, and put the copy in with [`BlockTable::replace_block`].
    #[must_use]
    pub fn needs_copy(&self) -> bool {
        self.blocks.get(self.next_block()).is_some_and(|next| !next.is_writable())
    }

    /// Puts `block` in the place of logical block `index` and returns the old one, to be kept until
    /// its contents have been copied.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use = "dropping the old block frees it, perhaps before it has been copied"]
    pub fn replace_block(&mut self, index: usize, block: BlockHandle) -> BlockHandle {
        self.ids[index] = block.id();
        std::mem::replace(&mut self.blocks[index], block)
    }

    /// A second sequence that begins with the same tokens in the same blocks.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            blocks: self.blocks.clone(),
            ids: self.ids.clone(),
            tokens: self.tokens,
            block_tokens: self.block_tokens,
        }
    }

    /// Keeps the first `tokens` tokens and the blocks they need; does nothing if there are fewer.
    pub fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
        self.release_down_to(self.tokens.div_ceil(self.block_tokens));
    }

    fn release_down_to(&mut self, blocks: usize) {
        while self.blocks.len() > blocks {
            self.blocks.pop();
        }
        self.ids.truncate(blocks);
    }
}

impl Drop for BlockTable {
    fn drop(&mut self) {
        self.release_down_to(0);
    }
}

#[cfg(test)]
mod tests;
