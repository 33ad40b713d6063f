//! What a GPU holds for a model: weights, activations, and KV in what is left.

use std::sync::Arc;

use kv_cache::{BlockId, KvLayout, KvRegion};

use super::attention::PagedAttention;
use super::driver::element::ElementType;
use super::kv::CudaKv;
use super::options::CudaOptions;
use super::step::batch;
use super::weights::load;
use super::weights::tensor::{CudaBuffer, CudaMatrix, CudaVector};
use super::{CudaBackend, Ready};
use crate::backend::rope::Rope;
use crate::backend::{Choosing, Memory};
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::weights::formats::dense;
use crate::weights::{StoredMatrix, Tensor};

impl Memory for CudaBackend {
    type Matrix = CudaMatrix;
    type Vector = CudaVector;
    type Buffer = CudaBuffer;

    fn matrix(&mut self, parts: &[StoredMatrix<'_>]) -> Result<CudaMatrix, EngineError> {
        let parts = dense_parts(parts)?;
        let (rows, cols) = (parts.iter().map(|part| part.rows).sum(), parts[0].cols);
        assert!(parts.iter().all(|part| part.cols == cols), "stacked matrices are equally wide");
        let memory = self.take(rows * cols, &parts)?;
        Ok(CudaMatrix { element: self.element, memory, rows, cols })
    }

    fn vector(&mut self, parts: &[Tensor<'_>]) -> Result<CudaVector, EngineError> {
        let memory = self.take(parts.iter().map(Tensor::elements).sum(), parts)?;
        Ok(CudaVector { memory })
    }

    fn buffer(&mut self, cols: usize) -> Result<CudaBuffer, EngineError> {
        // Recorded steps are padded.
        let rows = (self.options.step_rows_max as usize).next_multiple_of(batch::ROWS_STEP);
        let buffer = CudaBuffer::new(&self.device, self.element, rows, cols)?;
        self.taken_bytes += buffer.memory.bytes() as u64;
        Ok(buffer)
    }

    fn logit_buffer(&mut self, vocab: usize) -> Result<CudaBuffer, EngineError> {
        let rows = Self::LOGIT_ROWS_MAX;
        let buffer = CudaBuffer::new(&self.device, ElementType::F32, rows, vocab)?;
        self.taken_bytes += buffer.memory.bytes() as u64;
        Ok(buffer)
    }

    fn kept_buffer(&mut self, cols: usize) -> Result<CudaBuffer, EngineError> {
        let rows = (self.options.sequences_max as usize).next_multiple_of(batch::ROWS_STEP);
        let buffer = CudaBuffer::new(&self.device, self.element, rows, cols)?;
        self.taken_bytes += buffer.memory.bytes() as u64;
        Ok(buffer)
    }

    fn finish_loading(&mut self, config: &ModelConfig, rope: &Rope) -> Result<(), EngineError> {
        if let Some(loader) = self.loader.take() {
            loader.finish()?;
        }
        let (cos, sin) = load::rotations(
            &self.device,
            &self.stream,
            rope,
            positions_max(config, &self.options),
        )?;
        self.taken_bytes += (cos.bytes() + sin.bytes()) as u64;
        let blocks = match self.blocks_wanted {
            Some(blocks) => blocks,
            None => self.blocks_that_fit()?,
        };
        let kv = Arc::new(CudaKv::new(&self.compiler, &self.stream, &self.layout, blocks)?);
        let attention = PagedAttention::new(
            &self.compiler,
            &self.stream,
            &kv,
            (self.element, config.head_shape()),
            &self.options,
        )?;
        self.stream.synchronize()?;
        self.ready = Some(Ready { kv, attention, cos, sin });
        Ok(())
    }

    fn download(&mut self, buffer: &CudaBuffer) -> Result<Vec<f32>, EngineError> {
        self.bind()?;
        load::download(&self.stream, buffer)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        self.bind()?;
        self.ready()?.kv.copy_block(&self.stream, from, to)
    }

    fn kv_blocks(&self) -> u32 {
        self.ready.as_ref().map_or(0, |ready| ready.kv.blocks())
    }

    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// # Panics
    /// Before the model is loaded: there is no memory yet.
    fn region(&self) -> Arc<dyn KvRegion> {
        let ready = self.ready.as_ref().expect("a region is asked for once the model is loaded");
        Arc::clone(&ready.kv) as Arc<dyn KvRegion>
    }
}

// === impl CudaBackend ===

impl CudaBackend {
    /// Blocks for the memory that is left of the engine's share.
    fn blocks_that_fit(&self) -> Result<u32, EngineError> {
        let total = self.device.properties().memory_bytes;
        let share = (total as f64 * f64::from(self.options.memory_share)) as u64;
        let budget = share.saturating_sub(self.taken_bytes + load::RESERVE_BYTES);
        let budget = budget.min(self.device.free_memory()?.saturating_sub(load::RESERVE_BYTES));
        let blocks = budget / self.layout.block_bytes() as u64;
        let least = self.options.sequences_max.min(16);
        if blocks < u64::from(least) {
            return Err(EngineError::Device(format!(
                "not enough GPU memory for KV: the engine may take {:.1} GiB \
                 (engine.gpu_memory_utilization), and weights and activations take {:.1} of them. \
                 Raise it, lower engine.batch_tokens_max, or use a smaller model",
                gibibytes(share),
                gibibytes(self.taken_bytes),
            )));
        }
        Ok(u32::try_from(blocks)
            .unwrap_or(u32::MAX)
            .min(i32::MAX as u32 / self.layout.block_tokens()))
    }
}

/// Matrices in the format that there are products for.
fn dense_parts<'a>(parts: &[StoredMatrix<'a>]) -> Result<Vec<Tensor<'a>>, EngineError> {
    let dense = parts.iter().map(dense::of).collect::<Option<Vec<_>>>();
    dense.ok_or_else(|| {
        let formats: Vec<_> = parts.iter().map(StoredMatrix::format).collect();
        EngineError::Device(format!("no products on a GPU with weights that are {formats:?}"))
    })
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Positions that a sequence may have.
pub(super) fn positions_max(config: &ModelConfig, options: &CudaOptions) -> usize {
    options.context_tokens_max.unwrap_or(u32::MAX).min(config.max_position) as usize
}
