//! One step's work and its result: the words between the loop and the model.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use kv_cache::{BlockId, TokenId};
use words::{Sampling, TokenLogprob};

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
    pub sequences: Vec<SequenceRows<'a>>,
    /// The rows a token is wanted for.
    pub samples: Vec<SampleRow<'a>>,
    /// The rows whose given next token is to be scored (prompt logprobs).
    pub scores: Vec<ScoreRow>,
}

// === impl StepBatch ===

impl StepBatch<'_> {
    /// An empty one, with room for a row of each of `sequences` sequences.
    pub(crate) fn for_sequences(sequences: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(sequences),
            fed: Vec::with_capacity(sequences),
            positions: Vec::with_capacity(sequences),
            sequences: Vec::with_capacity(sequences),
            samples: Vec::with_capacity(sequences),
            scores: Vec::new(),
        }
    }

    /// The rows that anything is wanted of beside their keys and values, ascending: past the last layer's
    /// cache write nobody reads the others. None where narrowing the step to them isn't worth it: where
    /// it has no chunks, or where more rows are wanted than there are sequences.
    ///
    /// For a prompt that is one layer's MLP and output projection saved, and one layer's attention.
    #[must_use]
    pub fn kept_rows(&self) -> Option<Vec<usize>> {
        if self.sequences.iter().all(|sequence| sequence.rows.len() == 1) {
            return None;
        }
        let samples = self.samples.iter().map(|sample| sample.row);
        let mut rows: Vec<_> = samples.chain(self.scores.iter().map(|score| score.row)).collect();
        rows.sort_unstable();
        rows.dedup();
        (rows.len() <= self.sequences.len()).then_some(rows)
    }

    /// Rows of this step as sequences of one row each: what attention of them alone is about.
    ///
    /// - `rows`: ascending.
    pub(crate) fn as_single_rows(&self, rows: &[usize]) -> Vec<SequenceRows<'_>> {
        let mut sequences = self.sequences.iter();
        let mut sequence = sequences.next();
        let mut singles = Vec::with_capacity(rows.len());
        for (index, &row) in rows.iter().enumerate() {
            while sequence.is_some_and(|sequence| sequence.rows.end <= row) {
                sequence = sequences.next();
            }
            singles.extend(sequence.map(|sequence| SequenceRows {
                rows: index..index + 1,
                context_tokens: self.positions[row] + 1,
                blocks: Cow::Borrowed(&*sequence.blocks),
            }));
        }
        singles
    }
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
pub struct SequenceRows<'a> {
    /// Its rows in [`StepBatch::tokens`]; consecutive positions ending at `context_tokens - 1`.
    pub rows: Range<usize>,
    /// Tokens in its context once these rows are written; attention row `i` sees those up to its own position.
    pub context_tokens: u32,
    /// Its block table: logical block `i` is `blocks[i]`; covers `context_tokens`.
    pub blocks: Cow<'a, [BlockId]>,
}

// === impl SequenceRows ===

impl SequenceRows<'_> {
    /// The same, with a block table of its own.
    #[must_use]
    pub fn into_owned(self) -> SequenceRows<'static> {
        let Self { rows, context_tokens, blocks } = self;
        SequenceRows { rows, context_tokens, blocks: Cow::Owned(blocks.into_owned()) }
    }
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
    /// How long the device took, where it can tell.
    pub took: Option<Duration>,
}

/// One chosen token.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// The token.
    pub token: TokenId,
    /// Present when [`Sampling::logprobs`] is.
    pub logprob: Option<TokenLogprob>,
}
