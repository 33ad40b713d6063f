//! One batch: how it is put together from sequences, and what comes back to whom.

use std::ops::Range;

use kv_cache::Fence;
use scheduler::PromptLogprob;
use scheduler::batching::{PlannedRow, SequenceKey};

use super::StepModel;
use super::request::{Pages, Request};
use super::roster::Roster;
use crate::batch::{SampleRow, Sampled, ScoreRow, SequenceRows, StepBatch, StepOutput};
use crate::error::{EngineError, LogitsFault};
use crate::sequence::Sequence;

/// A batch, and whose each of its wishes is.
pub(super) struct Step<'a> {
    roster: &'a Roster,
    rows: &'a [PlannedRow],
    batch: StepBatch<'a>,
    /// One per [`StepBatch::samples`].
    sampled: Vec<(SequenceKey, u32)>,
    /// One per [`StepBatch::scores`]: the request and the index of the scored token.
    scored: Vec<(u64, u32)>,
    faults: Vec<(u64, LogitsFault)>,
}

/// What a step brought.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Tokens, sequence by sequence; one for each choice that the sequence stands for.
    pub(super) samples: Vec<(SequenceKey, u32, Sampled)>,
    /// Scores by request, in prompt order.
    pub(super) scores: Vec<(u64, PromptLogprob)>,
    /// Requests whose logits give no token.
    pub(super) faults: Vec<(u64, LogitsFault)>,
}

// === impl Step ===

impl<'a> Step<'a> {
    /// Puts together the batch for `rows`, whose sequences have blocks for them.
    pub(super) fn new(roster: &'a Roster, rows: &'a [PlannedRow]) -> Self {
        let mut step = Self {
            roster,
            rows,
            batch: StepBatch::default(),
            sampled: Vec::new(),
            scored: Vec::new(),
            faults: Vec::new(),
        };
        for row in rows {
            if let Some((request, sequence)) = roster.pair(row.key) {
                step.add_rows(request, sequence, row.tokens as usize);
            }
        }
        step
    }

    /// Runs it, announcing pages as they fill.
    ///
    /// A row whose logits give no token costs its own request and no other: its wishes are dropped
    /// and the step runs again, which writes the same KV to the same slots.
    ///
    /// # Errors
    /// [`EngineError`] if nothing of the step can be used.
    pub(super) fn run(mut self, model: &mut impl StepModel) -> Result<Outcome, EngineError> {
        let (roster, rows) = (self.roster, self.rows);
        let mut result =
            model.step(&self.batch, &mut |layers, fence| announce(roster, rows, &layers, fence));
        while let Err(EngineError::Logits { row, reason }) = result {
            if !self.give_up_row(row, reason) {
                return Err(EngineError::Logits { row, reason });
            }
            result = model.step(&self.batch, &mut |_, _| ());
        }
        result.map(|output| self.outcome(output))
    }

    fn add_rows(&mut self, request: &'a Request, sequence: &'a Sequence, tokens: usize) {
        let prompt = &request.work.prompt;
        let (first_row, start) = (self.batch.tokens.len(), sequence.table.tokens());
        let end = start + tokens;
        sequence.copy_tokens(prompt, start, tokens, &mut self.batch.tokens);
        self.batch.positions.extend(start as u32..end as u32);
        self.batch.sequences.push(SequenceRows {
            rows: first_row..first_row + tokens,
            context_tokens: end as u32,
            blocks: sequence.table.ids(),
        });
        self.add_scores(request, sequence.key.request, start..end, first_row);
        if end == sequence.context_tokens(prompt) && request.wants_token(sequence.output.len()) {
            self.add_samples(request, sequence, first_row + tokens - 1);
        }
    }

    /// Asks for a score of each prompt token whose predecessor is among `positions`.
    fn add_scores(
        &mut self,
        request: &Request,
        number: u64,
        positions: Range<usize>,
        first_row: usize,
    ) {
        let prompt = &request.work.prompt;
        let Some(top) = request.work.prompt_logprobs else { return };
        let first = request.scored.max(positions.start + 1);
        for index in first..prompt.len().min(positions.end + 1) {
            let row = first_row + index - 1 - positions.start;
            self.batch.scores.push(ScoreRow { row, next: prompt[index], top });
            self.scored.push((number, index as u32));
        }
    }

    fn add_samples(&mut self, request: &'a Request, sequence: &'a Sequence, row: usize) {
        for &choice in &sequence.choices {
            self.sampled.push((sequence.key, choice));
            self.batch.samples.push(SampleRow {
                row,
                sampling: &request.work.sampling,
                choice,
                index: sequence.output.len() as u32,
                prompt: &request.work.prompt,
                output: &sequence.output,
                banned: request.banned(&sequence.output),
            });
        }
    }

    /// Drops all wishes of the request that a row belongs to; `false` if it had none.
    fn give_up_row(&mut self, row: usize, reason: LogitsFault) -> bool {
        let at = self.batch.sequences.iter().position(|sequence| sequence.rows.contains(&row));
        let Some(request) = at.map(|at| self.rows[at].key.request) else { return false };
        let wishes = self.sampled.len() + self.scored.len();
        let kept: Vec<bool> = self.sampled.iter().map(|(key, _)| key.request != request).collect();
        retain_by(&mut self.batch.samples, &kept);
        retain_by(&mut self.sampled, &kept);
        let kept: Vec<bool> = self.scored.iter().map(|(owner, _)| *owner != request).collect();
        retain_by(&mut self.batch.scores, &kept);
        retain_by(&mut self.scored, &kept);
        self.faults.push((request, reason));
        self.sampled.len() + self.scored.len() < wishes
    }

    fn outcome(self, output: StepOutput) -> Outcome {
        let samples = self.sampled.into_iter().zip(output.samples);
        let scores = self.scored.into_iter().zip(output.scores);
        Outcome {
            samples: samples.map(|((key, choice), sampled)| (key, choice, sampled)).collect(),
            scores: scores
                .map(|((request, index), logprob)| (request, PromptLogprob { index, logprob }))
                .collect(),
            faults: self.faults,
        }
    }
}

/// Tells each prompt-only request which of its pages the step has written.
fn announce(roster: &Roster, rows: &[PlannedRow], layers: &Range<u32>, fence: Fence) {
    for row in rows {
        let Some((request, sequence)) = roster.pair(row.key) else { continue };
        let end = sequence.table.tokens() + row.tokens as usize;
        let last_chunk = end == sequence.context_tokens(&request.work.prompt);
        // Chunks end where a block ends or where the context does, and all blocks are for this one.
        request
            .announce(sequence.table.blocks(), Pages { layers: layers.clone(), fence, last_chunk });
    }
}

fn retain_by<T>(items: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    items.retain(|_| kept.next().copied().unwrap_or(false));
}
