//! Prompts that wait for what the tiers below have of them.
//!
//! A waiting sequence is looked up once, when there is room for it. While its blocks come up it is left out of plans, and then
//! it finds them in the pool as it finds every prefix. It holds none of them itself: what waits in line never
//! keeps memory from those that run.

use kv_cache::BlockTable;
use scheduler::batching::{BatchLimits, Standing};

use super::request::Request;
use super::roster::Roster;
use crate::engine::sequence::Sequence;
use crate::handle::Exchange;
use crate::tiers::{Ascent, Rise, Tiers};

/// Of the pool's blocks one in so many is for what was brought up, or is on its way, for sequences that don't run yet. What comes
/// up is cached like anything else: more, and the last to come would evict the first before they were read.
const RISING_SHARE: u32 = 2;

/// What is known of a waiting sequence's blocks in the tiers below.
#[derive(Debug, Default)]
pub(crate) enum Below {
    /// Nobody has looked, or there was no room for them.
    #[default]
    Unseen,
    /// They are there, and others come up before.
    Queued,
    /// They come up.
    Rising(Rise),
    /// So many came up; there are no more to wait for.
    Seen {
        /// Blocks.
        blocks: u32,
    },
}

/// What there is for those who wait.
struct Room<'a> {
    exchange: &'a Exchange,
    tiers: &'a Tiers,
    limits: &'a BatchLimits,
    /// What computing a block takes, seconds; 0 where nobody knows.
    block_s: f64,
    /// Blocks that may be taken.
    free_blocks: u32,
    /// Blocks that were brought up, or come up, for sequences that don't run yet.
    held_blocks: u32,
}

// === impl Below ===

impl Below {
    /// Whether its sequence is to be left out of plans.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self, Self::Queued | Self::Rising(_))
    }

    fn blocks(&self) -> u32 {
        match self {
            Self::Unseen | Self::Queued => 0,
            Self::Rising(rise) => rise.blocks,
            Self::Seen { blocks } => *blocks,
        }
    }
}

// === impl Roster ===

impl Roster {
    /// Looks waiting sequences up in the tiers, oldest first, and has brought up what they have; sees who has got it.
    ///
    /// - `prefill_tokens_per_s`: how fast prompts are computed; 0 where nobody knows.
    pub(super) fn raise(&mut self, tiers: &Tiers, limits: &BatchLimits, prefill_tokens_per_s: f64) {
        let exchange = std::sync::Arc::clone(&self.exchange);
        let free_blocks = self.unpromised_blocks(limits);
        let waits = |sequence: &&Sequence| is_new(sequence);
        let held_blocks = self.sequences.values().filter(waits).map(|it| it.below.blocks()).sum();
        let is_known = prefill_tokens_per_s > 0.0;
        let block_s =
            if is_known { f64::from(limits.block_tokens) / prefill_tokens_per_s } else { 0.0 };
        let mut room =
            Room { exchange: &exchange, tiers, limits, block_s, free_blocks, held_blocks };
        for (key, sequence) in self.sequences.iter_mut() {
            let Some(request) = self.requests.get(key.request) else { continue };
            if is_new(sequence) {
                room.look(request, sequence);
            }
        }
    }

    /// Blocks that nobody has or will take: running prompts go on, and every sequence may soon need one more.
    fn unpromised_blocks(&self, limits: &BatchLimits) -> u32 {
        let promised = |sequence: &Sequence| {
            let context = sequence.context_tokens(&self.request_of(sequence).prompt) as u32;
            let missing = context.div_ceil(limits.block_tokens);
            missing.saturating_sub(sequence.table.blocks().len() as u32) + sequence.width()
        };
        let running = self.sequences.values().filter(|it| it.standing == Standing::Running);
        let promised = running.map(promised).sum::<u32>() + limits.watermark_blocks;
        self.exchange.pool.counts().available().saturating_sub(promised)
    }
}

/// Whether a sequence waits, and has nothing yet.
fn is_new(sequence: &Sequence) -> bool {
    sequence.standing == Standing::Waiting && sequence.table.tokens() == 0
}

// === impl Room ===

impl Room<'_> {
    fn look(&mut self, request: &Request, sequence: &mut Sequence) {
        match &sequence.below {
            Below::Rising(rise) if rise.is_over() => {
                sequence.below = Below::Seen { blocks: rise.blocks };
            }
            Below::Rising(_) | Below::Seen { .. } => {}
            Below::Unseen | Below::Queued => sequence.below = self.look_below(request, sequence),
        }
    }

    fn look_below(&mut self, request: &Request, sequence: &mut Sequence) -> Below {
        if request.wants_scores() {
            return Below::Seen { blocks: 0 };
        }
        let context = sequence.context_tokens(&request.prompt) as u32;
        let whole = context.div_ceil(self.limits.block_tokens) + sequence.width();
        if whole > self.free_blocks {
            // It can't begin now, either.
            return Below::Unseen;
        }
        if self.is_full() && matches!(sequence.below, Below::Queued) {
            return Below::Queued;
        }
        let raised = self.lift(request, sequence);
        self.held_blocks += raised.blocks();
        self.free_blocks -= if raised.is_awaited() { whole } else { 0 };
        raised
    }

    fn is_full(&self) -> bool {
        self.held_blocks >= self.exchange.info.total_blocks / RISING_SHARE
    }

    /// Sends for what the tiers have of a sequence.
    fn lift(&self, request: &Request, sequence: &mut Sequence) -> Below {
        let pool = &self.exchange.pool;
        let (context, hashes) = sequence.named_prefix(pool, &request.hasher, &request.prompt);
        let held = pool.match_prefix(hashes, &context);
        let stored = self.tiers.find(held.len(), hashes, &context, self.block_s);
        if stored.is_empty() {
            return Below::Seen { blocks: 0 };
        }
        if self.is_full() {
            return Below::Queued;
        }
        let table = BlockTable::from_prefix(self.limits.block_tokens, held);
        let rising = &self.exchange.rising;
        let Some(ascent) = Ascent::new(pool, rising, (table, stored), hashes, &context) else {
            return Below::Unseen;
        };
        self.tiers.lift(ascent).map_or(Below::Queued, Below::Rising)
    }
}
