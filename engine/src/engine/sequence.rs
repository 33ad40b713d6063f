//! One choice's tokens and their KV.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use kv_cache::{BlockHash, BlockPool, BlockTable, ChainHasher, CommittedBlock, TokenId};
use scheduler::batching::{Due, Progress, SequenceKey, SequenceView, Standing};

use super::request::Request;
use super::rising::Below;

/// A sequence in the engine: what it has generated, and which of its tokens have KV.
///
/// Its context is prompt and output; the prompt belongs to the request and is passed in. While its
/// prompt is computed it stands for all the request's choices, which then part from it.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) key: SequenceKey,
    /// Choices that it stands for beside its own, until the prompt is computed.
    others: Vec<u32>,
    /// Generated tokens, those of an earlier attempt included.
    pub(crate) output: Vec<TokenId>,
    pub(crate) table: BlockTable,
    /// The block of the table that was last seen to be its own to write: it stays so.
    own_block: Option<usize>,
    pub(crate) standing: Standing,
    /// Tokens that were asked for and haven't been seen: none, or one for each step in flight.
    outstanding: usize,
    /// Where the next step finds the last of them: its index among the latest step's samples.
    /// `None` where the next step has to wait until the host has seen it.
    feed: Option<usize>,
    /// The latest step that it had a part in.
    last_step: u64,
    /// Names of the context's full blocks, as far as they have been needed.
    hashes: Vec<BlockHash>,
    /// Blocks of the table that have been published.
    sealed_blocks: usize,
    /// What is known of its blocks in the tiers below, while it waits.
    pub(crate) below: Below,
    /// Its tokens so far, by when they were there; those of an earlier attempt not among them.
    stream: Option<Stream>,
}

/// When tokens were there.
#[derive(Clone, Copy, Debug)]
struct Stream {
    first: Instant,
    latest: Instant,
    /// Tokens after the first.
    gaps: u32,
}

// === impl Sequence ===

impl Sequence {
    /// A waiting sequence.
    ///
    /// - `choices`: those of `request` that it stands for, at least one.
    /// - `hashes`: names of the context's first full blocks.
    pub(crate) fn new(
        request: u64,
        choices: &[u32],
        output: Vec<TokenId>,
        table: BlockTable,
        hashes: Vec<BlockHash>,
    ) -> Self {
        Self {
            key: SequenceKey { request, choice: choices[0] },
            others: choices[1..].to_vec(),
            output,
            table,
            own_block: None,
            standing: Standing::Waiting,
            outstanding: 0,
            feed: None,
            last_step: 0,
            hashes,
            sealed_blocks: 0,
            below: Below::default(),
            stream: None,
        }
    }

    /// One choice's own sequence, over the same blocks, with its first token.
    ///
    /// - `at`: when that was there.
    pub(crate) fn fork(&self, choice: u32, first: TokenId, at: Instant) -> Self {
        let mut output = self.output.clone();
        output.push(first);
        Self {
            key: SequenceKey { request: self.key.request, choice },
            others: Vec::new(),
            output,
            table: self.table.fork(),
            own_block: None,
            standing: self.standing,
            outstanding: 0,
            feed: None,
            last_step: self.last_step,
            hashes: self.hashes.clone(),
            sealed_blocks: self.sealed_blocks,
            below: Below::default(),
            stream: Some(Stream { first: at, latest: at, gaps: 0 }),
        }
    }

    /// The choices it stands for.
    pub(crate) fn choices(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.key.choice).chain(self.others.iter().copied())
    }

    /// How many they are.
    pub(crate) fn width(&self) -> u32 {
        1 + self.others.len() as u32
    }

    /// Tokens that need KV before the next one can be sampled; the outstanding ones among them.
    pub(crate) fn context_tokens(&self, prompt: &[TokenId]) -> usize {
        prompt.len() + self.generated_tokens()
    }

    /// Tokens of the context that the host has seen.
    pub(crate) fn known_tokens(&self, prompt: &[TokenId]) -> usize {
        prompt.len() + self.output.len()
    }

    /// Tokens generated, the outstanding ones among them.
    pub(crate) fn generated_tokens(&self) -> usize {
        self.output.len() + self.outstanding
    }

    /// Which of the latest step's samples its last token will be, where that is to be known.
    pub(crate) fn feed(&self) -> Option<usize> {
        self.feed
    }

    /// Whether the host has to see the outstanding token before there is anything to do.
    pub(crate) fn waits_for_host(&self) -> bool {
        self.outstanding > 0 && self.feed.is_none()
    }

    /// Whether a step after `collected` may still write to its blocks.
    pub(crate) fn is_written_after(&self, collected: u64) -> bool {
        self.last_step > collected
    }

    /// Notes that step `number` computes its context up to `written_tokens`.
    pub(crate) fn note_submitted(&mut self, number: u64, written_tokens: usize) {
        self.last_step = number;
        self.table.advance(written_tokens - self.table.tokens());
    }

    /// Blocks that no later step writes to: the full ones, and where the context is computed all.
    ///
    /// - `written_tokens`: tokens with KV, by steps that were submitted.
    pub(crate) fn final_blocks(&self, written_tokens: usize, completes: bool) -> usize {
        if completes { self.table.blocks().len() } else { self.table.full_blocks(written_tokens) }
    }

    /// Notes that the latest step chooses a token for it.
    ///
    /// - `feed`: see [`Sequence::feed`].
    pub(crate) fn expect_token(&mut self, feed: Option<usize>) {
        self.outstanding += 1;
        self.feed = feed;
    }

    /// Appends the oldest outstanding token.
    ///
    /// - `at`: when it was there.
    pub(crate) fn append(&mut self, token: TokenId, at: Instant) {
        self.output.push(token);
        self.stream = Some(match self.stream {
            None => Stream { first: at, latest: at, gaps: 0 },
            Some(before) => Stream { latest: at, gaps: before.gaps + 1, ..before },
        });
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.outstanding == 0 {
            self.feed = None;
        }
    }

    /// How far it has come at `begins`, when the steps in flight will have ended.
    ///
    /// - `arrived`: when its client asked.
    pub(crate) fn progress(&self, arrived: Instant, begins: Instant) -> Progress {
        let since = |then: Instant| begins.saturating_duration_since(then);
        match self.stream {
            None if self.outstanding > 0 => {
                Progress::Streaming { since: Duration::ZERO, gaps: 0, silent: Duration::ZERO }
            }
            None if self.output.is_empty() => Progress::Waiting { since: since(arrived) },
            // It was begun by another worker, no later than it arrived.
            None => {
                let (since, gaps) = (since(arrived), self.output.len() as u32 - 1);
                Progress::Streaming { since, gaps, silent: since }
            }
            Some(Stream { first, latest, gaps }) => {
                let silent = if self.outstanding > 0 { Duration::ZERO } else { since(latest) };
                let gaps = gaps + self.outstanding as u32;
                Progress::Streaming { since: since(first), gaps, silent }
            }
        }
    }

    /// What the planner needs to know of it.
    ///
    /// - `request`: its own.
    /// - `due`: when its next token is wanted.
    pub(super) fn view(&self, request: &Request, due: Due) -> SequenceView {
        SequenceView {
            key: self.key,
            standing: self.standing,
            client: request.client,
            paused: request.paused || self.waits_for_host() || self.below.is_awaited(),
            stalled: request.paused,
            context_tokens: self.context_tokens(&request.prompt) as u32,
            filled_tokens: self.table.tokens() as u32,
            held_blocks: self.table.blocks().len() as u32,
            copies_tail: self.needs_copy(),
            width: self.width(),
            due,
        }
    }

    /// Whether the block that the next token is written to is others', too. Asking the pool takes its lock, and a
    /// place in memory that nothing else of a step is at.
    pub(crate) fn needs_copy(&self) -> bool {
        self.own_block != Some(self.table.next_block()) && self.table.needs_copy()
    }

    /// Notes that the block that the next token is written to is its own: nobody else gets it while it isn't full.
    pub(crate) fn note_own_block(&mut self) {
        self.own_block = Some(self.table.next_block());
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
        let (context, hashes) = self.named_prefix(pool, hasher, prompt);
        let found = pool.match_prefix(hashes, &context);
        self.sealed_blocks = found.len();
        self.own_block = None;
        self.table = BlockTable::from_prefix(pool.block_tokens(), found);
        // Of a prompt that is there to its end the last token alone is computed again, in a copy of its block.
        self.table.set_tokens(self.table.tokens().min(context.len() - 1));
        self.table.tokens()
    }

    /// Its context, and the names of the blocks that could be found.
    pub(crate) fn named_prefix<'a>(
        &mut self,
        pool: &BlockPool,
        hasher: &ChainHasher,
        prompt: &'a [TokenId],
    ) -> (Cow<'a, [TokenId]>, &[BlockHash]) {
        let block_tokens = pool.block_tokens() as usize;
        let context = self.context(prompt);
        let blocks = context.len() / block_tokens;
        self.name_blocks(hasher, &context, blocks, block_tokens);
        (context, &self.hashes[..blocks])
    }

    /// Publishes the blocks that have become full since the last time.
    ///
    /// - `written_tokens`: tokens with KV, by steps that have ended.
    pub(crate) fn seal(
        &mut self,
        pool: &BlockPool,
        hasher: &ChainHasher,
        prompt: &[TokenId],
        written_tokens: usize,
    ) {
        let block_tokens = pool.block_tokens() as usize;
        let full_blocks = written_tokens / block_tokens;
        if full_blocks <= self.sealed_blocks {
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
            let named = CommittedBlock { hash: self.hashes[block], parent, depth: block as u32 };
            let _ = self.table.blocks()[block].seal(named, &tokens);
        }
        self.sealed_blocks = full_blocks;
    }

    /// The name of the whole context.
    pub(crate) fn name(
        &mut self,
        hasher: &ChainHasher,
        prompt: &[TokenId],
        block_tokens: u32,
    ) -> Option<BlockHash> {
        let context = self.context(prompt);
        let blocks = context.len() / block_tokens as usize;
        self.name_blocks(hasher, &context, blocks, block_tokens as usize);
        hasher.name_after(&self.hashes[..blocks], &context, block_tokens)
    }

    /// Gives its place up and waits for another, with its blocks.
    pub(crate) fn park(&mut self) {
        self.standing = Standing::Waiting;
    }

    /// Gives all blocks back and waits for a place again.
    pub(crate) fn preempt(&mut self) {
        self.release();
        self.below = Below::default();
        self.standing = Standing::Waiting;
    }

    /// Gives all blocks back.
    pub(crate) fn release(&mut self) {
        self.table.truncate(0);
        self.own_block = None;
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
