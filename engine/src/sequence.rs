//! One choice's tokens and their KV.

use std::borrow::Cow;

use kv_cache::{BlockHash, BlockPool, BlockTable, ChainHasher, TokenId};
use scheduler::batching::{SequenceKey, SequenceView, Standing};

/// A sequence in the engine: what it has generated, and which of its tokens have KV.
///
/// Its context is prompt and output; the prompt belongs to the request and is passed in. While its
/// prompt is computed it stands for all the request's choices, which then part from it.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) key: SequenceKey,
    /// The choices it stands for; more than one until the prompt is computed.
    pub(crate) choices: Vec<u32>,
    /// Generated tokens, those of an earlier attempt included.
    pub(crate) output: Vec<TokenId>,
    pub(crate) table: BlockTable,
    pub(crate) standing: Standing,
    /// Names of the context's full blocks, as far as they have been needed.
    hashes: Vec<BlockHash>,
    /// Blocks of the table that have been published.
    sealed_blocks: usize,
}

// === impl Sequence ===

impl Sequence {
    /// A waiting sequence.
    ///
    /// - `hashes`: names of the context's first full blocks.
    pub(crate) fn new(
        key: SequenceKey,
        choices: Vec<u32>,
        output: Vec<TokenId>,
        table: BlockTable,
        hashes: Vec<BlockHash>,
    ) -> Self {
        let standing = Standing::Waiting;
        Self { key, choices, output, table, standing, hashes, sealed_blocks: 0 }
    }

    /// One choice's own sequence, over the same blocks, with its first token.
    pub(crate) fn fork(&self, choice: u32, first: TokenId) -> Self {
        let mut output = self.output.clone();
        output.push(first);
        Self {
            key: SequenceKey { request: self.key.request, choice },
            choices: vec![choice],
            output,
            table: self.table.fork(),
            standing: self.standing,
            hashes: self.hashes.clone(),
            sealed_blocks: self.sealed_blocks,
        }
    }

    /// Tokens that need KV before the next one can be sampled.
    pub(crate) fn context_tokens(&self, prompt: &[TokenId]) -> usize {
        prompt.len() + self.output.len()
    }

    /// What the planner needs to know of it.
    pub(crate) fn view(&self, prompt: &[TokenId], paused: bool) -> SequenceView {
        SequenceView {
            key: self.key,
            standing: self.standing,
            paused,
            context_tokens: self.context_tokens(prompt) as u32,
            filled_tokens: self.table.tokens() as u32,
            held_blocks: self.table.blocks().len() as u32,
            copies_tail: self.table.needs_copy(),
            width: self.choices.len() as u32,
        }
    }

    /// Appends the context's tokens from position `start`, `count` of them, to `to`.
    pub(crate) fn copy_tokens(
        &self,
        prompt: &[TokenId],
        start: usize,
        count: usize,
        to: &mut Vec<TokenId>,
    ) {
        let end = start + count;
        to.extend_from_slice(&prompt[start.min(prompt.len())..end.min(prompt.len())]);
        let output = |position: usize| position.saturating_sub(prompt.len());
        to.extend_from_slice(&self.output[output(start)..output(end)]);
    }

    /// Takes the longest cached prefix that leaves at least one token to compute, since a token can
    /// only be sampled from a row of this step. Returns its tokens.
    pub(crate) fn pin_prefix(
        &mut self,
        pool: &BlockPool,
        hasher: &ChainHasher,
        prompt: &[TokenId],
    ) -> usize {
        let block_tokens = pool.block_tokens() as usize;
        let blocks = (self.context_tokens(prompt) - 1) / block_tokens;
        let context = self.context(prompt);
        self.name_blocks(hasher, &context, blocks, block_tokens);
        let found = pool.match_prefix(&self.hashes[..blocks], &context);
        self.sealed_blocks = found.len();
        self.table = BlockTable::from_prefix(pool.block_tokens(), found);
        self.table.tokens()
    }

    /// Publishes the blocks that have become full since the last time.
    pub(crate) fn seal(&mut self, pool: &BlockPool, hasher: &ChainHasher, prompt: &[TokenId]) {
        let block_tokens = pool.block_tokens() as usize;
        let full_blocks = self.table.tokens() / block_tokens;
        if full_blocks == self.sealed_blocks {
            return;
        }
        let mut tokens = Vec::with_capacity(block_tokens);
        for block in self.sealed_blocks..full_blocks {
            tokens.clear();
            self.copy_tokens(prompt, block * block_tokens, block_tokens, &mut tokens);
            let parent = block.checked_sub(1).map(|before| self.hashes[before]);
            if self.hashes.len() == block {
                self.hashes.push(hasher.extend(parent, &tokens));
            }
            // A duplicate or a collision stays private; it is released like any other.
            let _ = self.table.blocks()[block].seal(self.hashes[block], &tokens, parent);
        }
        self.sealed_blocks = full_blocks;
    }

    /// Gives all blocks back and waits for a place again.
    pub(crate) fn preempt(&mut self) {
        self.release();
        self.standing = Standing::Waiting;
    }

    /// Gives all blocks back.
    pub(crate) fn release(&mut self) {
        self.table.truncate(0);
        self.sealed_blocks = 0;
    }

    fn context<'a>(&self, prompt: &'a [TokenId]) -> Cow<'a, [TokenId]> {
        if self.output.is_empty() {
            return Cow::Borrowed(prompt);
        }
        Cow::Owned([prompt, &self.output].concat())
    }

    fn name_blocks(
        &mut self,
        hasher: &ChainHasher,
        context: &[TokenId],
        blocks: usize,
        block_tokens: usize,
    ) {
        let known = self.hashes.len();
        if known < blocks {
            let rest = &context[known * block_tokens..blocks * block_tokens];
            let parent = self.hashes.last().copied();
            self.hashes.extend(hasher.hash_blocks(parent, rest, block_tokens as u32));
        }
    }
}
