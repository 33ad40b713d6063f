//! One batch: how it is put together from sequences, and what comes back to whom.

use std::borrow::Cow;
use std::ops::Range;
use std::time::{Duration, Instant};

use kv_cache::{BlockHandle, Fence};
use scheduler::batching::PlannedRow;
use scheduler::cost::StepShape;
use words::PromptLogprob;

use super::StepModel;
use super::request::{Pages, Request};
use super::roster::Roster;
use crate::batch::{FedRow, SampleRow, Sampled, ScoreRow, SequenceRows, StepBatch, StepOutput};
use crate::engine::sequence::Sequence;
use crate::error::{EngineError, LogitsFault};

/// A batch, and whose each part of it is.
pub(super) struct Step<'a> {
    batch: StepBatch<'a>,
    parts: Vec<Part>,
    shape: StepShape,
    /// One per [`StepBatch::scores`]: the request and the index of the scored token.
    scored: Vec<(u64, u32)>,
    /// Prompts whose pages somebody waits for.
    announced: Vec<Announced<'a>>,
}

/// One sequence's part in a step that was submitted.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) row: PlannedRow,
    /// Tokens of its context with KV once the step has run.
    pub(super) written_tokens: usize,
    /// Whether its whole context has KV then, so that a token or its end follows.
    pub(super) completes: bool,
    /// Its samples among the step's: one for each choice that the sequence stands for, or none.
    pub(super) samples: Range<usize>,
}

/// A chunk of a prompt that is computed for somebody else.
#[derive(Debug)]
struct Announced<'a> {
    request: &'a Request,
    sequence: &'a Sequence,
    /// Its blocks that are final with it: a chunk may end anywhere in one.
    blocks: usize,
    last_chunk: bool,
}

/// A step that was submitted and whose results haven't been seen.
pub(super) struct Flight<T> {
    /// Counted from 1.
    pub(super) number: u64,
    pub(super) parts: Vec<Part>,
    pub(super) submitted: Instant,
    /// What its time depends on.
    pub(super) shape: StepShape,
    /// Blocks it copies from; they stay until it has ended.
    pub(super) copied_from: Vec<BlockHandle>,
    scored: Vec<(u64, u32)>,
    ticket: T,
}

/// What a step brought.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Tokens, part by part; of a part with a fault there is no use for any.
    pub(super) samples: Vec<Result<Sampled, LogitsFault>>,
    /// Scores by request, in prompt order.
    pub(super) scores: Vec<(u64, PromptLogprob)>,
    /// Requests whose logits give no token.
    pub(super) faults: Vec<(u64, LogitsFault)>,
    /// How long the device took, where it can tell.
    pub(super) took: Option<Duration>,
}

// === impl Step ===

impl<'a> Step<'a> {
    /// Puts together the batch for `rows`, whose sequences have blocks for them.
    pub(super) fn new(roster: &'a Roster, rows: &'a [PlannedRow]) -> Self {
        let mut step = Self {
            batch: StepBatch::for_sequences(rows.len()),
            parts: Vec::with_capacity(rows.len()),
            scored: Vec::new(),
            shape: StepShape::default(),
            announced: Vec::new(),
        };
        for row in rows {
            if let Some((request, sequence)) = roster.pair(row.key) {
                step.add_rows(request, sequence, *row);
            }
        }
        step
    }

    /// Submits it, announcing pages as they fill.
    ///
    /// # Errors
    /// [`EngineError`] if nothing of the step can be used.
    pub(super) fn submit<M: StepModel>(
        self,
        model: &mut M,
        number: u64,
    ) -> Result<Flight<M::Ticket>, EngineError> {
        let submitted = crate::clock::now();
        let announced = self.announced;
        let ticket = model.submit(&self.batch, &mut |layers, fence| {
            announced.iter().for_each(|it| it.announce(&layers, fence));
        })?;
        let Self { parts, shape, scored, .. } = self;
        Ok(Flight { number, parts, submitted, shape, copied_from: Vec::new(), scored, ticket })
    }

    fn add_rows(&mut self, request: &'a Request, sequence: &'a Sequence, row: PlannedRow) {
        let prompt = &request.prompt;
        let (first_row, start) = (self.batch.tokens.len(), sequence.table.tokens());
        let (tokens, end) = (row.tokens as usize, start + row.tokens as usize);
        let known = end.min(sequence.known_tokens(prompt));
        sequence.copy_tokens(prompt, start, known - start, &mut self.batch.tokens);
        if let Some(sample) = sequence.feed().filter(|_| known < end) {
            self.batch.fed.push(FedRow { row: first_row + tokens - 1, sample });
            self.batch.tokens.push(0);
        }
        self.batch.positions.extend(start as u32..end as u32);
        self.batch.sequences.push(SequenceRows {
            rows: first_row..first_row + tokens,
            context_tokens: end as u32,
            blocks: Cow::Borrowed(sequence.table.ids()),
        });
        self.add_scores(request, sequence.key.request, start..end, first_row);
        let completes = end == sequence.context_tokens(prompt);
        let first_sample = self.batch.samples.len();
        if completes && request.ends.wants_token(sequence.generated_tokens()) {
            self.add_samples(request, sequence, first_row + tokens - 1);
        }
        let samples = first_sample..self.batch.samples.len();
        if request.prefill_only {
            let blocks = sequence.final_blocks(end, completes);
            self.announced.push(Announced { request, sequence, blocks, last_chunk: completes });
        }
        self.shape = self.shape + StepShape::part(start as u32, row.tokens);
        self.parts.push(Part { row, written_tokens: end, completes, samples });
    }

    /// Asks for a score of each prompt token whose predecessor is among `positions`.
    fn add_scores(
        &mut self,
        request: &Request,
        number: u64,
        positions: Range<usize>,
        first_row: usize,
    ) {
        let prompt = &request.prompt;
        let Some(top) = request.prompt_logprobs else { return };
        let first = request.scored.max(positions.start + 1);
        for index in first..prompt.len().min(positions.end + 1) {
            let row = first_row + index - 1 - positions.start;
            self.batch.scores.push(ScoreRow { row, next: prompt[index], top });
            self.scored.push((number, index as u32));
        }
    }

    /// Asks for a token of each choice.
    fn add_samples(&mut self, request: &'a Request, sequence: &'a Sequence, row: usize) {
        for choice in sequence.choices() {
            self.batch.samples.push(SampleRow {
                row,
                sampling: &request.sampling,
                choice,
                index: sequence.generated_tokens() as u32,
                prompt: &request.prompt,
                output: &sequence.output,
                banned: request.ends.banned(sequence.generated_tokens()),
            });
        }
    }
}

// === impl Announced ===

impl Announced<'_> {
    /// Says which pages the step has written of it.
    fn announce(&self, layers: &Range<u32>, fence: Fence) {
        let pages = Pages { layers: layers.clone(), fence, last_chunk: self.last_chunk };
        self.request.announce(&self.sequence.table.blocks()[..self.blocks], pages);
    }
}

// === impl Flight ===

impl<T> Flight<T> {
    /// Whether prompts are computed.
    pub(super) fn has_prompts(&self) -> bool {
        self.shape.prompt_tokens > 0
    }

    /// Whether the results are there.
    pub(super) fn is_done<M: StepModel<Ticket = T>>(&self, model: &M) -> bool {
        model.is_done(&self.ticket)
    }

    /// Waits for the results.
    ///
    /// # Errors
    /// [`EngineError`] if nothing of the step can be used; with the parts that were in it.
    pub(super) fn collect<M: StepModel<Ticket = T>>(
        self,
        model: &mut M,
    ) -> (Vec<Part>, Result<Outcome, EngineError>) {
        let output = model.collect(self.ticket);
        let outcome = output.map(|output| Outcome::new(&self.parts, self.scored, output));
        (self.parts, outcome)
    }
}

// === impl Outcome ===

impl Outcome {
    fn new(parts: &[Part], scored: Vec<(u64, u32)>, output: StepOutput) -> Self {
        let StepOutput { samples, scores, took } = output;
        let mut outcome = Self { samples, scores: Vec::new(), faults: Vec::new(), took };
        outcome.find_faults(parts);
        for ((request, index), score) in scored.into_iter().zip(scores) {
            match score {
                Ok(logprob) => outcome.scores.push((request, PromptLogprob { index, logprob })),
                Err(fault) => outcome.faults.push((request, fault)),
            }
        }
        outcome
    }

    fn find_faults(&mut self, parts: &[Part]) {
        if self.samples.iter().all(Result::is_ok) {
            return;
        }
        for part in parts {
            let faults =
                self.samples[part.samples.clone()].iter().filter_map(|it| it.as_ref().err());
            self.faults.extend(faults.map(|fault| (part.row.key.request, *fault)));
        }
    }
}
