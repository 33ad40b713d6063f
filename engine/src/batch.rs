//! One step's work and its result: the words between the loop and the model.

use std::ops::Range;

use kv_cache::{BlockId, TokenId};
use scheduler::{Sampling, TokenLogprob};

use crate::error::LogitsFault;

/// One batch through the model: prefill chunks and decode rows side by side.
#[derive(Clone, Debug, Default)]
pub struct StepBatch<'a> {
    /// `[num_tokens]`: the rows of all sequences, one sequence after the other.
    pub tokens: Vec<TokenId>,
    /// Rows whose token the host doesn't know yet: the device puts it there. Their entry in `tokens`
    /// means nothing.
    pub fed: Vec<FedRow>,
    /// `[num_tokens]`: each row's position in its sequence, from 0.
    pub positions: Vec<u32>,
    /// What belongs to which sequence.
    pub sequences: Vec<SequenceRows>,
    /// The rows a token is wanted for.
    pub samples: Vec<SampleRow<'a>>,
    /// The rows whose given next token is to be scored (prompt logprobs).
    pub scores: Vec<ScoreRow>,
}

/// A row whose token is one that the step before has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FedRow {
    /// Row in [`StepBatch::tokens`].
    pub row: usize,
    /// Which of the [`StepBatch::samples`] of the step submitted before this one.
    pub sample: usize,
}

/// One sequence's share of a step.
#[derive(Clone, Debug)]
pub struct SequenceRows {
    /// Its rows in [`StepBatch::tokens`]; consecutive positions ending at `context_tokens - 1`.
    pub rows: Range<usize>,
    /// Tokens in its context once these rows are written; attention row `i` sees those up to its own position.
    pub context_tokens: u32,
    /// Its block table: logical block `i` is `blocks[i]`; covers `context_tokens`.
    pub blocks: Vec<BlockId>,
}

/// One token to choose.
#[derive(Clone, Debug)]
pub struct SampleRow<'a> {
    /// Row in [`StepBatch::tokens`] whose logits decide.
    pub row: usize,
    /// How to choose.
    pub sampling: &'a Sampling,
    /// The choice's index, part of the random key.
    pub choice: u32,
    /// Index of the token among the choice's generated tokens, part of the random key.
    pub index: u32,
    /// The prompt, for the repetition penalty.
    pub prompt: &'a [TokenId],
    /// Tokens generated so far, for all penalties.
    pub output: &'a [TokenId],
    /// Tokens that may not be chosen (stop tokens before `min_tokens`).
    pub banned: &'a [TokenId],
}

/// One prompt token to score.
#[derive(Clone, Copy, Debug)]
pub struct ScoreRow {
    /// Row in [`StepBatch::tokens`] whose logits are read.
    pub row: usize,
    /// The token that follows it in the prompt.
    pub next: TokenId,
    /// Alternatives to return.
    pub top: u32,
}

/// What a step gave.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// One per [`StepBatch::samples`], in order. A row without a token says why; the step's KV is
    /// written and the other rows are fine.
    pub samples: Vec<Result<Sampled, LogitsFault>>,
    /// One per [`StepBatch::scores`], in order.
    pub scores: Vec<Result<TokenLogprob, LogitsFault>>,
}

/// One chosen token.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Present when [`Sampling::logprobs`] is.
    pub logprob: Option<TokenLogprob>,
}
