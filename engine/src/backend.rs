//! The seam between the forward pass and a device.
//!
//! About a dozen fused operations, each over a whole step. The forward pass in [`crate::model`] is
//! written once over them. Nothing here assumes that buffers are host memory, or that an operation
//! has finished when its call returns: results become visible to the host only through
//! [`Backend::sample`], [`Backend::score`] and the region's fences.

pub mod cpu;

use std::sync::Arc;

use kv_cache::{BlockId, Fence, KvLayout, KvRegion};
use scheduler::TokenLogprob;

use crate::batch::{SampleRow, Sampled, ScoreRow, StepBatch};
use crate::config::HeadShape;
use crate::error::EngineError;
use crate::rope::Rope;
use crate::weights::Tensor;

/// A device that computes steps and owns the KV memory they write.
///
/// Rows are tokens of the step, in [`StepBatch::tokens`] order. An operation that writes a buffer
/// first gives it as many rows as it needs; what was in it is lost.
///
/// **Batch invariance**: a row's result depends on that row's own sequence alone, bit for bit: not
/// on the other rows of the step, not on how the prompt was cut into chunks, not on the number of
/// threads. Disaggregated output equals single-engine output because of it.
pub trait Backend: Send + Sized + 'static {
    /// A weight matrix on the device, `[rows, cols]`: rows are outputs.
    type Matrix: Send + Sync;
    /// A weight vector on the device.
    type Vector: Send + Sync;
    /// Activations on the device: rows of a fixed number of columns.
    type Buffer: Send;
    /// What the device needs to know of a step: tokens, positions, slots, block tables, angles.
    type Batch: Send + Sync;

    /// Rows of logits computed at once; bounds their memory to this many vocabularies.
    const LOGIT_ROWS_MAX: usize;

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
    fn buffer(&mut self, cols: usize) -> Self::Buffer;

    /// Moves a step's description to the device. The batch has been validated.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn prepare(&mut self, batch: &StepBatch<'_>, rope: &Rope) -> Result<Self::Batch, EngineError>;

    /// Runs `step` where the device's operations are best called from (its thread pool, its
    /// context).
    fn run<R: Send>(&mut self, step: impl FnOnce(&mut Self) -> R + Send) -> R;

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

    /// `out = silu(gate) * up`.
    ///
    /// - `gate_up`: `[tokens, 2 * width]`, gates first.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn silu_mul(
        &mut self,
        gate_up: &Self::Buffer,
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

    /// Chooses a token for each request.
    ///
    /// - `requests`: with the row of `logits` to choose from.
    ///
    /// # Errors
    /// [`EngineError::Logits`] for the first request that has none to choose;
    /// [`EngineError::Device`].
    fn sample(
        &mut self,
        logits: &Self::Buffer,
        requests: &[(usize, &SampleRow<'_>)],
    ) -> Result<Vec<Sampled>, EngineError>;

    /// Scores given tokens.
    ///
    /// - `requests`: with the row of `logits` to read.
    ///
    /// # Errors
    /// As [`Backend::sample`].
    fn score(
        &mut self,
        logits: &Self::Buffer,
        requests: &[(usize, &ScoreRow)],
    ) -> Result<Vec<TokenLogprob>, EngineError>;

    /// Copies a whole block to another, in all layers.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError>;

    /// A fence behind everything submitted so far.
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
