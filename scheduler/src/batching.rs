//! Which sequences run in the engine's next step, and how many of their tokens.
//!
//! A sequence has a context (prompt and output so far) of which a part already has KV. A step
//! computes some of the rest: one token for a sequence that decodes, a chunk for one that is being
//! prefilled. The rules, in this order:
//!
//! 1. Decode rows come first, so no prompt delays a token that is due by more than one step.
//! 2. Then sequences that wait with their KV already there (handed off): they hold memory.
//! 3. Then chunks of prompts, as long as the step is not expected to take longer than its rows have time
//!    (`room`). Those come first that keep their targets that way, the shortest rest first (`order`), but the oldest
//!    has a part of each step. Few rows that would be paid as a whole tile of the products are left for the next step.
//! 4. A waiting prompt begins where its whole context still fits beside the others: a prompt that is half computed
//!    and then preempted is work lost.
//!
//! Clients share what 3 and 4 have of a step: of what is not the oldest prompt's the client that wants
//! least comes first ([`crate::Backlog`]). What is then left goes to whoever is next.
//!
//! Before all that, sequences whose readers have stalled give way to those that wait: their places, which costs them
//! nothing, then their blocks. And clients share the places: who waits while another client has two places more than
//! his gets the youngest of those.
//!
//! A row that needs a block where none is free preempts: paused sequences first, then the youngest
//! that is younger than itself. So the oldest sequence always advances and everything ends.
//! Preempted sequences keep their age, which puts them before all that wait.
//!
//! Pure: the pool and the prefix cache are seen through numbers. What is planned here is an
//! intention; whoever carries it out may find that a block has gone to somebody else meanwhile, and
//! leaves that row for the next step.

mod due;
mod order;
mod planner;
mod room;

use std::time::Duration;

use words::ClientId;

pub use self::due::{Due, Progress};
use self::planner::Planner;
use crate::cost::{StepShape, StepTimes};

/// A sequence's name in its engine; the order is the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceKey {
    /// Number of the request, counted from the engine's start.
    pub request: u64,
    /// Index among the request's choices.
    pub choice: u32,
}

/// What bounds a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Tokens of all rows of a step. At least `sequences_max + block_tokens`, or a full batch of
    /// decode rows could leave no room for a prompt.
    pub tokens_max: u32,
    /// Sequences that run at once.
    pub sequences_max: u32,
    /// Token slots of a block.
    pub block_tokens: u32,
    /// Blocks left free when a waiting prompt is admitted, for the growth of those that run.
    pub watermark_blocks: u32,
    /// Blocks that somebody outside waits for; sequences whose readers have stalled give theirs.
    pub wanted_blocks: u32,
}

/// How long steps take, and may take.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'a> {
    /// Forecasts.
    pub times: &'a StepTimes,
    /// The longest step while somebody else may come to the device and wait for its end; `None`: nobody does.
    pub step_max: Option<Duration>,
}

/// Whether a sequence has one of the running places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not yet admitted, or preempted.
    Waiting,
    /// Admitted.
    Running,
}

/// A sequence as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceView {
    /// Which.
    pub key: SequenceKey,
    /// Running or waiting.
    pub standing: Standing,
    /// Whose it is.
    pub client: ClientId,
    /// It isn't scheduled for now.
    pub paused: bool,
    /// Its reader has stalled: it is paused, and gives what it has to those that need it.
    pub stalled: bool,
    /// Tokens that need KV before the next one can be sampled; more than `filled_tokens`.
    pub context_tokens: u32,
    /// Tokens that have KV.
    pub filled_tokens: u32,
    /// Blocks in its table, shared ones too.
    pub held_blocks: u32,
    /// The next token's slot is in a block that has to be copied before it is written.
    pub copies_tail: bool,
    /// Running places it takes: its choices, which share one row until their prompt is computed.
    pub width: u32,
    /// When its next token is wanted.
    pub due: Due,
}

/// What the prefix cache has for a waiting sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixHit {
    /// Tokens found, whole blocks; fewer than the context, so that there is a row to sample from.
    pub tokens: u32,
    /// By how much pinning them lowered the number of available blocks.
    pub blocks_taken: u32,
}

/// One sequence's part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    /// Which.
    pub key: SequenceKey,
    /// Tokens to compute; at least one.
    pub tokens: u32,
    /// Blocks to take for them.
    pub blocks: u32,
}

/// What a step does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sequences that give their blocks back and wait, first of all.
    pub preempted: Vec<SequenceKey>,
    /// Sequences that give up their places and wait, with their blocks.
    pub parked: Vec<SequenceKey>,
    /// The rows; a waiting sequence that is named here begins to run.
    pub rows: Vec<PlannedRow>,
}

/// Plans one step.
///
/// - `pace`: what bounds its time.
/// - `sequences`: all of them, oldest first.
/// - `available_blocks`: blocks that can be promised now.
/// - `probe`: looks a waiting sequence up in the prefix cache, just before it may be admitted, and
///   pins what it finds. The caller unpins for those that aren't in the plan before it takes blocks
///   for those that are.
///
/// # Panics
/// If `sequences` isn't in order, which would break the promise to the oldest.
pub fn plan(
    limits: &BatchLimits,
    pace: &Pace<'_>,
    sequences: &[SequenceView],
    available_blocks: u32,
    probe: &mut dyn FnMut(SequenceKey) -> PrefixHit,
) -> Plan {
    assert!(sequences.is_sorted_by(|a, b| a.key < b.key), "sequences come oldest first");
    let mut planner = Planner::new(limits, pace, sequences, available_blocks);
    planner.give_way();
    planner.decode_rows();
    planner.admit_resumed();
    planner.prompts(probe);
    planner.into_plan()
}

// === impl SequenceView ===

impl SequenceView {
    /// Tokens still to compute.
    #[must_use]
    pub fn remaining_tokens(&self) -> u32 {
        self.context_tokens - self.filled_tokens
    }

    /// What `tokens` more of it are to a step.
    fn part(&self, tokens: u32) -> StepShape {
        StepShape::part(self.filled_tokens, tokens)
    }

    /// Blocks to take before `tokens` more can be computed.
    #[must_use]
    pub fn blocks_needed(&self, tokens: u32, block_tokens: u32) -> u32 {
        let blocks = (self.filled_tokens + tokens).div_ceil(block_tokens);
        blocks.saturating_sub(self.held_blocks) + u32::from(self.copies_tail)
    }
}

#[cfg(test)]
mod tests;
