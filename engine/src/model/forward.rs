//! The forward pass of one step, over whatever parts a model's layers have.

use std::borrow::Cow;
use std::ops::Range;

use super::weights::Weights;
use super::{OnLayers, PendingStep, attention, mlp};
use crate::backend::{Backend, Norm};
use crate::batch::StepBatch;
use crate::config::ModelConfig;
use crate::error::EngineError;

/// Activations of the step under way; kept between steps for their memory.
pub(super) struct Scratch<B: Backend> {
    /// `[tokens, hidden]`: the residual stream.
    hidden: B::Buffer,
    /// `[tokens, hidden]`: the normed residual stream.
    pub(super) normed: B::Buffer,
    /// `[tokens, hidden]`: what attention or MLP adds.
    delta: B::Buffer,
    /// `[kept, hidden]`: of the rows that go on past the last layer's cache write.
    kept_hidden: B::Buffer,
    attention: attention::Scratch<B>,
    mlp: mlp::Scratch<B>,
    /// `[up to LOGIT_ROWS_MAX, vocab]`.
    pub(super) logits: B::Buffer,
}

/// The forward pass of one step.
pub(super) struct Forward<'a, B: Backend> {
    pub(super) config: &'a ModelConfig,
    pub(super) weights: &'a Weights<B>,
    pub(super) scratch: &'a mut Scratch<B>,
    pub(super) layer_group: u32,
    /// See [`StepBatch::kept_rows`].
    pub(super) kept: Option<Vec<usize>>,
    /// Whether only kept rows are left.
    pub(super) is_narrow: bool,
}

// === impl Scratch ===

impl<B: Backend> Scratch<B> {
    pub(super) fn new(config: &ModelConfig, backend: &mut B) -> Result<Self, EngineError> {
        let hidden = config.hidden_size as usize;
        Ok(Self {
            hidden: backend.buffer(hidden)?,
            normed: backend.buffer(hidden)?,
            delta: backend.buffer(hidden)?,
            kept_hidden: backend.kept_buffer(hidden)?,
            attention: attention::Scratch::new(config, backend)?,
            mlp: mlp::Scratch::new(config, backend)?,
            logits: backend.logit_buffer(config.vocab_size as usize)?,
        })
    }
}

// === impl Forward ===

impl<B: Backend> Forward<'_, B> {
    /// Embeds the tokens and runs all layers; leaves the normed last hidden state in `normed`, of the
    /// rows that are kept.
    pub(super) fn layers(
        &mut self,
        backend: &mut B,
        batch: &B::Batch,
        mut on_layers: Option<&mut OnLayers<'_>>,
    ) -> Result<(), EngineError> {
        let eps = self.config.rms_norm_eps;
        let weights = self.weights;
        backend.embed(batch, &weights.embedding, &mut self.scratch.hidden)?;
        for (index, layer) in (0u32..).zip(&weights.layers) {
            self.norm(backend, index > 0, Norm { weight: &layer.attention_norm, eps })?;
            let Scratch { normed, attention, .. } = &mut *self.scratch;
            layer.attention.write(backend, batch, normed, attention)?;
            if let (Some(written), Some(on_layers)) =
                (self.group_ending_with(index), on_layers.as_deref_mut())
            {
                on_layers(written, backend.fence()?);
            }
            let Scratch { hidden, kept_hidden, attention, delta, .. } = &mut *self.scratch;
            match &self.kept {
                Some(kept) if index + 1 == self.config.layers => {
                    if kept.is_empty() {
                        return Ok(());
                    }
                    // From here on there are no other rows.
                    self.is_narrow = true;
                    backend.keep(batch, hidden, kept_hidden)?;
                    layer.attention.attend_kept(backend, batch, attention, delta)?;
                }
                _ => layer.attention.attend(backend, batch, attention, delta)?,
            }
            self.norm(backend, true, Norm { weight: &layer.mlp_norm, eps })?;
            let Scratch { normed, mlp, delta, .. } = &mut *self.scratch;
            layer.mlp.run(backend, normed, mlp, delta)?;
        }
        self.norm(backend, true, Norm { weight: &weights.norm, eps })
    }

    /// The residual stream, with `delta` added to it if that is pending, to `normed`.
    fn norm(
        &mut self,
        backend: &mut B,
        pending: bool,
        norm: Norm<'_, B>,
    ) -> Result<(), EngineError> {
        let Scratch { hidden, kept_hidden, normed, delta, .. } = &mut *self.scratch;
        let hidden = if self.is_narrow { kept_hidden } else { hidden };
        backend.add_norm(hidden, pending.then_some(&*delta), norm, normed)
    }

    /// The layers to report once layer `index` has been written, if a group ends with it.
    fn group_ending_with(&self, index: u32) -> Option<Range<u32>> {
        let end = index + 1;
        let ends_group = end.is_multiple_of(self.layer_group) || end == self.config.layers;
        ends_group.then(|| index / self.layer_group * self.layer_group..end)
    }

    /// Computes logits where they are wanted, a bounded number of rows at a time, and asks for tokens
    /// and scores.
    pub(super) fn choose(
        &mut self,
        backend: &mut B,
        batch: &StepBatch<'_>,
        pending: &mut PendingStep<B>,
    ) -> Result<(), EngineError> {
        for (chunk, samples) in batch.samples.chunks(B::LOGIT_ROWS_MAX).enumerate() {
            let rows = self.wanted_logits(backend, samples.iter().map(|sample| sample.row))?;
            let requests: Vec<_> =
                samples.iter().map(|sample| (place(&rows, sample.row), sample)).collect();
            let first = chunk * B::LOGIT_ROWS_MAX;
            pending.samples.push(backend.sample(&self.scratch.logits, first, &requests)?);
        }
        for scores in batch.scores.chunks(B::LOGIT_ROWS_MAX) {
            let rows = self.wanted_logits(backend, scores.iter().map(|score| score.row))?;
            let requests: Vec<_> =
                scores.iter().map(|score| (place(&rows, score.row), score)).collect();
            pending.scores.push(backend.score(&self.scratch.logits, &requests)?);
        }
        Ok(())
    }

    /// Computes the logits of some batch rows, each once; returns which rows, ascending.
    fn wanted_logits(
        &mut self,
        backend: &mut B,
        rows: impl Iterator<Item = usize>,
    ) -> Result<Vec<usize>, EngineError> {
        let mut rows: Vec<usize> = rows.collect();
        rows.sort_unstable();
        rows.dedup();
        let Scratch { normed, logits, .. } = &mut *self.scratch;
        let computed: Cow<'_, [usize]> = match &self.kept {
            Some(kept) => rows.iter().map(|&row| place(kept, row)).collect(),
            None => Cow::Borrowed(&rows),
        };
        backend.logits(normed, &computed, self.weights.head(), logits)?;
        Ok(rows)
    }
}

/// Where a row is among those computed, which are ascending.
pub(super) fn place(rows: &[usize], row: usize) -> usize {
    // Where none is left out, each is in its own place.
    if rows.get(row) == Some(&row) {
        return row;
    }
    rows.binary_search(&row).expect("every wanted row was computed")
}
