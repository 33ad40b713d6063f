//! What a device computes: a dozen fused operations, each over a whole step.

use super::Memory;
use crate::backend::rope::Rope;
use crate::batch::StepBatch;
use crate::config::HeadShape;
use crate::error::EngineError;

/// The operations of the forward pass.
///
/// Rows are tokens of the step, in [`StepBatch::tokens`] order. An operation that writes a buffer
/// first gives it as many rows as it needs; what was in it is lost.
pub trait Operations: Memory {
    /// What the device needs to know of a step: tokens, positions, slots, block tables, angles.
    type Batch: Send + Sync;

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
        attention: &PagedHeads<'_, Self>,
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
        attention: &PagedHeads<'_, Self>,
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

    /// As [`Operations::attention`], of the rows that are kept.
    ///
    /// - `qkv`, `out`: `[kept, ..]`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn attention_of_kept(
        &mut self,
        batch: &Self::Batch,
        attention: &PagedHeads<'_, Self>,
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
pub struct Norm<'a, B: Memory> {
    /// `[cols]`.
    pub weight: &'a B::Vector,
    /// Added to the mean square.
    pub eps: f32,
}

/// A projection's weights.
pub struct Linear<'a, B: Memory> {
    /// `[outputs, inputs]`.
    pub weight: &'a B::Matrix,
    /// `[outputs]`.
    pub bias: Option<&'a B::Vector>,
}

/// One layer's attention, apart from its projections.
pub struct PagedHeads<'a, B: Memory> {
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
