//! Rules that add up what isn't of one kind: Dynamo's block cost, and llm-d's weighted scorers.

use scheduler::PlacementRequest;

use super::{Candidate, Rule, least};

/// Tokens of one of their blocks.
const BLOCK_TOKENS: f64 = 16.0;

/// Dynamo's: `scale * blocks to compute + blocks in use`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockCost {
    /// How much a block that is to be computed counts.
    pub scale: f64,
}

/// llm-d's: each scorer gives 0 to 1, and the greatest sum is chosen; for an answer first, and for its prompt only where
/// much of that is still to be computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighted {
    /// Of the queue's length, the longest being 0.
    pub queue: f64,
    /// Of free KV memory.
    pub memory: f64,
    /// Of the part of the prompt that is cached.
    pub prefix: f64,
    /// Prompts of which fewer tokens than these are to be computed are not handed over.
    pub handed_over_min: f64,
}

// === impl BlockCost ===

impl Default for BlockCost {
    fn default() -> Self {
        Self { scale: 1.0 }
    }
}

impl Rule for BlockCost {
    fn for_prompt(&mut self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        least(among, |it| {
            let queued = it.queued_tokens() + u64::from(it.uncached_tokens(request));
            (self.scale * queued as f64 + it.active_tokens() as f64) / BLOCK_TOKENS
        })
    }

    /// Nothing is to be computed there.
    fn for_answer(&mut self, among: &[Candidate<'_>], _: &PlacementRequest<'_>) -> usize {
        least(among, |it| it.active_tokens() as f64 / BLOCK_TOKENS)
    }
}

// === impl Weighted ===

impl Default for Weighted {
    fn default() -> Self {
        Self { queue: 2.0, memory: 2.0, prefix: 3.0, handed_over_min: 512.0 }
    }
}

impl Weighted {
    fn best(&self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        let queues = || among.iter().map(Candidate::requests).map(f64::from);
        let (short, long) = (queues().fold(f64::INFINITY, f64::min), queues().fold(0.0, f64::max));
        least(among, |it| {
            let queue = 1.0 - (f64::from(it.requests()) - short) / (long - short).max(1.0);
            let capacity = &it.worker.info.capacity;
            let memory = f64::from(capacity.kv_blocks) * f64::from(capacity.block_tokens);
            let free = (1.0 - it.active_tokens() as f64 / memory).max(0.0);
            let prefix = f64::from(it.cached_tokens()) / f64::from(request.context_tokens.max(1));
            -(self.queue * queue + self.memory * free + self.prefix * prefix)
        })
    }
}

impl Rule for Weighted {
    fn for_prompt(&mut self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        self.best(among, request)
    }

    fn for_answer(&mut self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        self.best(among, request)
    }

    fn hands_over(&self, decode: Candidate<'_>, request: &PlacementRequest<'_>) -> bool {
        f64::from(decode.uncached_tokens(request)) >= self.handed_over_min
    }
}
