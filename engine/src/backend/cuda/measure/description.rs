//! What a step costs the host before anything is copied: its description, written to memory that no device reads.

use crate::backend::cuda::driver::address::Span;
use crate::backend::cuda::sampling::Requests;
use crate::backend::cuda::step::batch::{self, StepLimits};
use crate::batch::{SampleRow, StepBatch};

/// Tokens to choose from: no matter how many, as long as requests name none beyond.
const VOCAB: usize = 1 << 20;

/// Describes steps as they are described to a GPU, without one.
#[derive(Debug)]
pub struct Description {
    limits: StepLimits,
    words: Vec<u32>,
    /// Empty between steps.
    list: Requests,
    requests: Vec<u8>,
}

// === impl Description ===

impl Description {
    /// Room for steps of these sizes.
    ///
    /// - `rows_max`, `sequences_max`: of a step.
    /// - `table_max`: blocks of a sequence, each of `block_tokens` slots.
    #[must_use]
    pub fn new(
        rows_max: usize,
        sequences_max: usize,
        table_max: usize,
        block_tokens: usize,
    ) -> Self {
        let limits = StepLimits { rows_max, sequences_max, table_max, block_tokens };
        let list = Requests::new(VOCAB, true);
        Self { limits, words: vec![0; limits.words_max()], list, requests: Vec::new() }
    }

    /// Describes a step; returns how many words of 32 bits that takes.
    pub fn write(&mut self, batch: &StepBatch<'_>) -> usize {
        let base = Span::of_memory(self.words.as_ptr() as u64, 4 * self.words.len());
        let (_, used) = batch::describe(&mut self.words, base, batch, &self.limits);
        used
    }

    /// Describes what is wanted of its logits; returns how many bytes that takes.
    ///
    /// - `wanted`: with the row of logits to choose from.
    pub fn write_samples(&mut self, wanted: &[(usize, &SampleRow<'_>)]) -> usize {
        wanted.iter().for_each(|(row, sample)| self.list.choose(*row, sample));
        self.requests.resize(self.list.bytes(), 0);
        self.list.write(&mut self.requests);
        self.list.clear();
        self.requests.len()
    }
}
