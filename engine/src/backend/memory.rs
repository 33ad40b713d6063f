//! What a device holds: weights, activations and KV.

use std::sync::Arc;

use kv_cache::{BlockId, KvLayout, KvRegion};

use crate::backend::rope::Rope;
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::weights::{StoredMatrix, Tensor};

/// A device's memory.
pub trait Memory: Send + Sized + 'static {
    /// A weight matrix on the device, `[rows, cols]`: rows are outputs.
    type Matrix: Send + Sync;
    /// A weight vector on the device.
    type Vector: Send + Sync;
    /// Activations on the device: rows of a fixed number of columns.
    type Buffer: Send;

    /// Moves matrices of equal width to the device as one, stacked in order.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out.
    fn matrix(&mut self, parts: &[StoredMatrix<'_>]) -> Result<Self::Matrix, EngineError>;

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

    /// An empty buffer for up to [`super::Choosing::LOGIT_ROWS_MAX`] rows of logits, 32-bit floats.
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

    /// Copies a buffer to the host, row after row. For tests and diagnosis.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn download(&mut self, buffer: &Self::Buffer) -> Result<Vec<f32>, EngineError>;

    /// Copies a whole block to another, in all layers.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError>;

    /// Blocks of the KV memory.
    fn kv_blocks(&self) -> u32;

    /// The shape of the KV memory.
    fn layout(&self) -> &KvLayout;

    /// The KV memory, for transfers.
    fn region(&self) -> Arc<dyn KvRegion>;
}
