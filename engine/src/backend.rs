//! The seam between the forward pass and a device.
//!
//! About a dozen fused operations, each over a whole step. The forward pass in [`crate::model`] is
//! written once over them. Nothing here assumes that buffers are host memory, or that an operation
//! has finished when its call returns: results become visible to the host only through
//! [`Backend::sampled`], [`Backend::scored`] and the region's fences.

pub mod cpu;
pub mod cuda;

use std::sync::Arc;

use kv_cache::{BlockId, Fence, KvLayout, KvRegion};
use words::TokenLogprob;

use crate::batch::{SampleRow, Sampled, ScoreRow, StepBatch};
use crate::config::{HeadShape, ModelConfig};
use crate::error::{EngineError, LogitsFault};
use crate::rope::Rope;
use crate::weights::Tensor;

/// A device that computes steps and owns the KV memory they write.
///
/// Rows are tokens of the step, in [`StepBatch::tokens`] order. An operation that writes a buffer
/// first gives it as many rows as it needs; what was in it is lost.
///
/// **Batch invariance** of the reference backend: a row's result depends on that row's own sequence
/// alone, bit for bit: not on the other rows of the step, not on how the prompt was cut into chunks,
/// not on the number of threads. Other backends repeat themselves bit for bit on the same batch, and
/// agree with the reference within the rounding of their element type (ADR 7).
pub trait Backend: Send + Sized + 'static {
    /// A weight matrix on the device, `[rows, cols]`: rows are outputs.
    type Matrix: Send + Sync;
    /// A weight vector on the device.
    type Vector: Send + Sync;
    /// Activations on the device: rows of a fixed number of columns.
    type Buffer: Send;
    /// What the device needs to know of a step: tokens, positions, slots, block tables, angles.
    type Batch: Send + Sync;
    /// Tokens that were asked for and may still be in the making.
    type Samples: Send;
    /// Scores that were asked for and may still be in the making.
    type Scores: Send;
    /// A point in what was submitted.
    type Mark: Send;

    /// Rows of logits computed at once; bounds their memory to this many vocabularies.
    const LOGIT_ROWS_MAX: usize;

    /// Whether the device works on while the host prepares the next step. Where it doesn't, a step
    /// submitted early only delays the tokens of the one before.
    const OVERLAPS: bool;

    /// Whether others that it doesn't know work on the device, too. Then a step should end before the
    /// next is submitted, so that each has its turn.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether others may come that would wait for a step to end. Then steps should be short.
    fn expects_others(&self) -> bool {
        self.is_shared()
    }

    /// Moves matrices of equal width to the device as one, stacked in order.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    fn matrix(&mut self, parts: &[Tensor<'_>]) -> Result<Self::Matrix, EngineError>;

    /// Moves vectors to the device as one, in order.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    fn vector(&mut self, parts: &[Tensor<'_>]) -> Result<Self::Vector, EngineError>;

    /// An empty activation buffer of `cols` columns.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    fn buffer(&mut self, cols: usize) -> Result<Self::Buffer, EngineError>;

    /// An empty buffer for up to [`Backend::LOGIT_ROWS_MAX`] rows of logits, 32-bit floats.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    fn logit_buffer(&mut self, vocab: usize) -> Result<Self::Buffer, EngineError>;

    /// An empty activation buffer for as many rows as a step has sequences.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    fn kept_buffer(&mut self, cols: usize) -> Result<Self::Buffer, EngineError>;

    /// Called once, when weights and activations have their memory: what is left is for KV.
    ///
    /// # Errors
    /// [`EngineError::Device`] if nothing is left.
    fn finish_loading(&mut self, config: &ModelConfig, rope: &Rope) -> Result<(), EngineError>;

    /// Moves a step's description to the device. The batch has been validated.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn prepare(&mut self, batch: &StepBatch<'_>, rope: &Rope) -> Result<Self::Batch, EngineError>;

    /// Runs `step` where the device's operations are best called from (its thread pool, its
    /// context).
    fn run<R: Send>(&mut self, step: impl FnOnce(&mut Self) -> R + Send) -> R;

    /// Runs the layers' operations for a batch by calling `operations`, or repeats what the device
    /// recorded when it ran them for a batch of the same shape: then they are not called.
    ///
    /// # Errors
    /// What `operations` says; [`EngineError::Device`].
    fn layers(
        &mut self,
        batch: &Self::Batch,
        operations: impl FnOnce(&mut Self, Pass) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError>;

    /// `out[row] = table[tokens[row]]`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn embed(
        &mut self,
        batch: &Self::Batch,
        table: &Self::Matrix,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// `hidden += delta; out = hidden / rms(hidden) * weight`, with `eps` under the root.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn add_norm(
        &mut self,
        hidden: &mut Self::Buffer,
        delta: Option<&Self::Buffer>,
        norm: Norm<'_, Self>,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// `out = x * weight^T + bias`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn linear(
        &mut self,
        x: &Self::Buffer,
        layer: Linear<'_, Self>,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// Norms each head's queries and keys if the layer does, rotates them in place, and writes keys
    /// and values to the layer's pages.
    ///
    /// - `qkv`: `[tokens, (heads + 2 * kv_heads) * head_dim]`, queries first, then keys, values.
    ///
    /// # Errors
    /// [`EngineError::Device`]; the slots written are then undefined.
    fn rope_and_cache(
        &mut self,
        batch: &Self::Batch,
        attention: &Attention<'_, Self>,
        qkv: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// Causal attention of every row over its sequence's pages, through the block table.
    ///
    /// A row at position `p` sees positions `max(0, p + 1 - window)..=p`.
    ///
    /// - `out`: `[tokens, heads * head_dim]`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn attention(
        &mut self,
        batch: &Self::Batch,
        attention: &Attention<'_, Self>,
        qkv: &Self::Buffer,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// The rows of the batch that are kept ([`StepBatch::kept_rows`]): `out[i] = x[kept[i]]`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn keep(
        &mut self,
        batch: &Self::Batch,
        x: &Self::Buffer,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// As [`Backend::attention`], of the rows that are kept.
    ///
    /// - `qkv`, `out`: `[kept, ..]`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn attention_of_kept(
        &mut self,
        batch: &Self::Batch,
        attention: &Attention<'_, Self>,
        qkv: &Self::Buffer,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// `out = silu(gate) * up`, where gate and up are the halves of `x * weight^T + bias`.
    ///
    /// - `layer`: `[2 * width, inputs]`, gates first.
    /// - `gate_up`: `[tokens, 2 * width]`, for backends that do it in two steps.
    /// - `out`: `[tokens, width]`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn gated(
        &mut self,
        x: &Self::Buffer,
        layer: Linear<'_, Self>,
        gate_up: &mut Self::Buffer,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// Logits of some rows: `out[i] = x[rows[i]] * head^T`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn logits(
        &mut self,
        x: &Self::Buffer,
        rows: &[usize],
        head: &Self::Matrix,
        out: &mut Self::Buffer,
    ) -> Result<(), EngineError>;

    /// Starts to choose a token for each request.
    ///
    /// - `first`: index of the first request among the step's, for [`StepBatch::fed`] rows of the
    ///   next step.
    /// - `requests`: with the row of `logits` to choose from.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn sample(
        &mut self,
        logits: &Self::Buffer,
        first: usize,
        requests: &[(usize, &SampleRow<'_>)],
    ) -> Result<Self::Samples, EngineError>;

    /// Waits for the tokens of [`Backend::sample`]; one result per request.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn sampled(
        &mut self,
        samples: Self::Samples,
    ) -> Result<Vec<Result<Sampled, LogitsFault>>, EngineError>;

    /// Starts to score given tokens.
    ///
    /// - `requests`: with the row of `logits` to read.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn score(
        &mut self,
        logits: &Self::Buffer,
        requests: &[(usize, &ScoreRow)],
    ) -> Result<Self::Scores, EngineError>;

    /// Waits for the results of [`Backend::score`]; one per request.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn scored(
        &mut self,
        scores: Self::Scores,
    ) -> Result<Vec<Result<TokenLogprob, LogitsFault>>, EngineError>;

    /// Copies a whole block to another, in all layers.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError>;

    /// A mark behind everything submitted so far, for the host.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn mark(&mut self) -> Result<Self::Mark, EngineError>;

    /// Whether all before a mark is done. True, too, where it failed: [`Backend::pass`] tells.
    fn has_passed(&self, mark: &Self::Mark) -> bool;

    /// Waits until all before a mark is done.
    ///
    /// # Errors
    /// [`EngineError::Device`] if some of it failed.
    fn pass(&mut self, mark: Self::Mark) -> Result<(), EngineError>;

    /// A fence behind everything submitted so far, for transfers.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn fence(&mut self) -> Result<Fence, EngineError>;

    /// Copies a buffer to the host, row after row. For tests and diagnosis.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn download(&mut self, buffer: &Self::Buffer) -> Result<Vec<f32>, EngineError>;

    /// Blocks of the KV memory.
    fn kv_blocks(&self) -> u32;

    /// The shape of the KV memory.
    fn layout(&self) -> &KvLayout;

    /// The KV memory, for transfers.
    fn region(&self) -> Arc<dyn KvRegion>;
}

/// How the layers' operations reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// They are submitted as they are called.
    Live,
    /// They are recorded, to run when the call for all of them returns: nothing is written yet.
    Recorded,
}

/// A norm's weights.
pub struct Norm<'a, B: Backend> {
    /// `[cols]`.
    pub weight: &'a B::Vector,
    /// Added to the mean square.
    pub eps: f32,
}

/// A projection's weights.
pub struct Linear<'a, B: Backend> {
    /// `[outputs, inputs]`.
    pub weight: &'a B::Matrix,
    /// `[outputs]`.
    pub bias: Option<&'a B::Vector>,
}

/// One layer's attention, apart from its projections.
pub struct Attention<'a, B: Backend> {
    /// Which layer's pages.
    pub layer: u32,
    /// How a row splits into heads.
    pub shape: HeadShape,
    /// How far back a row sees, itself included.
    pub window: Option<u32>,
    /// Norm of each head's queries.
    pub q_norm: Option<Norm<'a, B>>,
    /// Norm of each head's keys.
    pub k_norm: Option<Norm<'a, B>>,
}
