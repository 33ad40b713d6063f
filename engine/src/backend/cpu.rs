//! The reference backend: plain loops over host memory, fast enough to serve small models.
//!
//! Weights stay in their dtype and are widened in registers; sums are 32-bit floats.

mod attention;
mod crew;
mod gemm;
mod host_memory;
mod kernels;
mod kv;
mod rows;
mod simd;
mod tensor;

use std::sync::Arc;
use std::time::Duration;

use kv_cache::{BlockId, Fence, KvLayout, KvRegion};
use words::TokenLogprob;

use crate::backend::rope::{Rope, RopeRows};
use crate::backend::{Choosing, Linear, Memory, Norm, Operations, PagedHeads, Pass, Timeline};
use crate::batch::{SampleRow, Sampled, ScoreRow, SequenceRows, StepBatch};
use crate::config::ModelConfig;
use crate::error::{EngineError, LogitsFault};
use crate::sampler;
use crate::weights::{StoredMatrix, Tensor};
use attention::PagedAttention;
use crew::Crew;
pub use gemm::CpuMatrix;
use gemm::Product;
pub use host_memory::HostDemand;
use kv::{CpuKv, PageShape, Slot};
use simd::Isa;
use tensor::with_elements;
pub use tensor::{CpuBuffer, CpuVector};

/// What looking at one logit costs, in multiply-adds.
const SAMPLING_COST: usize = 16;

/// Computes on the host's cores.
#[derive(Debug)]
pub struct CpuBackend {
    isa: Isa,
    crew: Arc<Crew>,
    kv: Arc<CpuKv>,
    pages: PageShape,
}

/// A step's description: the batch's own, and what all layers need of it.
#[derive(Debug)]
pub struct CpuBatch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<SequenceRows<'static>>,
    slots: Vec<Slot>,
    rope: RopeRows,
    kept: Option<Kept>,
}

/// The rows that go on past the last layer's cache write.
#[derive(Debug)]
struct Kept {
    rows: Vec<usize>,
    positions: Vec<u32>,
    sequences: Vec<SequenceRows<'static>>,
}

// === impl CpuBackend ===

impl CpuBackend {
    /// A backend with zeroed KV memory.
    ///
    /// - `threads`: `None` for one per core.
    ///
    /// # Errors
    /// [`EngineError::Device`] if threads can't be started, [`EngineError::Limits`] for KV that isn't
    /// read here.
    pub fn new(
        layout: &KvLayout,
        kv_blocks: u32,
        threads: Option<usize>,
    ) -> Result<Self, EngineError> {
        let (crew, kv) = (Arc::new(Crew::new(threads)?), Arc::new(kv::pool(layout, kv_blocks)?));
        Ok(Self { isa: Isa::detect(), crew, pages: PageShape::new(layout), kv })
    }

    fn product<'a>(&'a self, x: &'a [&'a [f32]]) -> Product<'a> {
        Product { isa: self.isa, crew: &self.crew, x }
    }

    /// Attention of the rows of `qkv`.
    fn attend(
        &self,
        attention: &PagedHeads<'_, Self>,
        (sequences, positions): (&[SequenceRows<'_>], &[u32]),
        qkv: &CpuBuffer,
        out: &mut CpuBuffer,
    ) {
        out.resize(qkv.rows());
        let paged = PagedAttention {
            isa: self.isa,
            crew: &self.crew,
            shape: attention.shape,
            window: attention.window,
            pages: self.pages,
            sequences,
            positions,
        };
        let layer = self.kv.layer(attention.layer).read();
        with_elements!(&*layer, layer => paged.run(qkv, layer, out));
    }
}

// === impl CpuBatch ===

impl CpuBatch {
    fn kept(&self) -> Result<&Kept, EngineError> {
        self.kept.as_ref().ok_or_else(|| {
            EngineError::Device("a step that keeps all its rows was narrowed".to_owned())
        })
    }
}

impl Memory for CpuBackend {
    type Matrix = CpuMatrix;
    type Vector = CpuVector;
    type Buffer = CpuBuffer;

    fn matrix(&mut self, parts: &[StoredMatrix<'_>]) -> Result<CpuMatrix, EngineError> {
        CpuMatrix::stack(parts)
    }

    fn vector(&mut self, parts: &[Tensor<'_>]) -> Result<CpuVector, EngineError> {
        Ok(CpuVector::concat(parts))
    }

    fn buffer(&mut self, cols: usize) -> Result<CpuBuffer, EngineError> {
        Ok(CpuBuffer::new(cols))
    }

    fn logit_buffer(&mut self, vocab: usize) -> Result<CpuBuffer, EngineError> {
        Ok(CpuBuffer::new(vocab))
    }

    fn kept_buffer(&mut self, cols: usize) -> Result<CpuBuffer, EngineError> {
        Ok(CpuBuffer::new(cols))
    }

    fn finish_loading(&mut self, _: &ModelConfig, _: &Rope) -> Result<(), EngineError> {
        Ok(())
    }

    fn download(&mut self, buffer: &CpuBuffer) -> Result<Vec<f32>, EngineError> {
        Ok(buffer.data.clone())
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        self.kv.copy_block(from, to);
        Ok(())
    }

    fn kv_blocks(&self) -> u32 {
        self.kv.blocks()
    }

    fn layout(&self) -> &KvLayout {
        self.kv.layout()
    }

    fn region(&self) -> Arc<dyn KvRegion> {
        Arc::clone(&self.kv) as Arc<dyn KvRegion>
    }
}

impl Operations for CpuBackend {
    type Batch = CpuBatch;

    fn prepare(&mut self, batch: &StepBatch<'_>, rope: &Rope) -> Result<CpuBatch, EngineError> {
        let block_tokens = self.pages.block_tokens();
        let slots = batch.sequences.iter().flat_map(|sequence| {
            batch.positions[sequence.rows.clone()].iter().map(move |&position| Slot {
                block: sequence.blocks[position as usize / block_tokens],
                offset: position as usize % block_tokens,
            })
        });
        let kept = batch.kept_rows().map(|rows| Kept {
            positions: rows.iter().map(|&row| batch.positions[row]).collect(),
            sequences: batch
                .as_single_rows(&rows)
                .into_iter()
                .map(SequenceRows::into_owned)
                .collect(),
            rows,
        });
        Ok(CpuBatch {
            tokens: batch.tokens.clone(),
            positions: batch.positions.clone(),
            slots: slots.collect(),
            sequences: batch.sequences.iter().cloned().map(SequenceRows::into_owned).collect(),
            rope: rope.rows(&batch.positions),
            kept,
        })
    }

    fn run<R: Send>(&mut self, step: impl FnOnce(&mut Self) -> R + Send) -> R {
        let crew = Arc::clone(&self.crew);
        crew.install(|| step(self))
    }

    fn layers(
        &mut self,
        _: &CpuBatch,
        operations: impl FnOnce(&mut Self, Pass) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError> {
        operations(self, Pass::Live)?;
        Ok(Pass::Live)
    }

    fn embed(
        &mut self,
        batch: &CpuBatch,
        table: &CpuMatrix,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        out.resize(batch.tokens.len());
        table.embed(&batch.tokens, out);
        Ok(())
    }

    fn add_norm(
        &mut self,
        hidden: &mut CpuBuffer,
        delta: Option<&CpuBuffer>,
        norm: Norm<'_, Self>,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        out.resize(hidden.rows());
        if let Some(delta) = delta {
            rows::add(&mut hidden.data, &delta.data);
        }
        let cols = hidden.cols;
        for (x, out) in hidden.data.chunks_exact(cols).zip(out.data.chunks_exact_mut(cols)) {
            out.copy_from_slice(x);
            rows::norm(self.isa, out, &norm.weight.0, norm.eps);
        }
        Ok(())
    }

    fn linear(
        &mut self,
        x: &CpuBuffer,
        layer: Linear<'_, Self>,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        let x: Vec<&[f32]> = x.data.chunks_exact(x.cols).collect();
        layer.weight.multiply(&self.product(&x), out);
        if let Some(bias) = layer.bias {
            out.data.chunks_exact_mut(out.cols).for_each(|row| rows::add(row, &bias.0));
        }
        Ok(())
    }

    fn rope_and_cache(
        &mut self,
        batch: &CpuBatch,
        attention: &PagedHeads<'_, Self>,
        qkv: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        let isa = self.isa;
        rows::norm_and_rotate(isa, &self.crew, attention, &batch.rope, qkv);
        let (q, kv) = (attention.shape.q_width(), attention.shape.kv_width());
        let pages = self.pages;
        let mut layer = self.kv.layer(attention.layer).write();
        for (row, &slot) in qkv.data.chunks_exact(qkv.cols).zip(&batch.slots) {
            pages.write(&mut layer, slot, &row[q..q + kv], &row[q + kv..]);
        }
        Ok(())
    }

    fn attention(
        &mut self,
        batch: &CpuBatch,
        attention: &PagedHeads<'_, Self>,
        qkv: &CpuBuffer,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        self.attend(attention, (&batch.sequences, &batch.positions), qkv, out);
        Ok(())
    }

    fn keep(
        &mut self,
        batch: &CpuBatch,
        x: &CpuBuffer,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        let Kept { rows, .. } = batch.kept()?;
        out.resize(rows.len());
        for (&row, out) in rows.iter().zip(out.data.chunks_exact_mut(x.cols)) {
            out.copy_from_slice(x.row(row));
        }
        Ok(())
    }

    fn attention_of_kept(
        &mut self,
        batch: &CpuBatch,
        attention: &PagedHeads<'_, Self>,
        qkv: &CpuBuffer,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        let Kept { sequences, positions, .. } = batch.kept()?;
        self.attend(attention, (sequences, positions), qkv, out);
        Ok(())
    }

    fn gated(
        &mut self,
        x: &CpuBuffer,
        layer: Linear<'_, Self>,
        gate_up: &mut CpuBuffer,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        self.linear(x, layer, gate_up)?;
        out.resize(gate_up.rows());
        rows::silu_mul(self.isa, &self.crew, gate_up, out);
        Ok(())
    }

    fn logits(
        &mut self,
        x: &CpuBuffer,
        rows: &[usize],
        head: &CpuMatrix,
        out: &mut CpuBuffer,
    ) -> Result<(), EngineError> {
        let x: Vec<&[f32]> = rows.iter().map(|&row| x.row(row)).collect();
        head.multiply(&self.product(&x), out);
        Ok(())
    }
}

impl Choosing for CpuBackend {
    type Samples = Vec<Result<Sampled, LogitsFault>>;
    type Scores = Vec<Result<TokenLogprob, LogitsFault>>;

    // 64 rows of a 150,000-token vocabulary are 38 MB.
    const LOGIT_ROWS_MAX: usize = 64;

    fn sample(
        &mut self,
        logits: &CpuBuffer,
        _: usize,
        requests: &[(usize, &SampleRow<'_>)],
    ) -> Result<Self::Samples, EngineError> {
        let work = requests.len() * logits.cols * SAMPLING_COST;
        Ok(self.crew.map(requests.len(), work, |index| {
            let (row, request) = requests[index];
            sampler::sample(logits.row(row), request)
        }))
    }

    fn sampled(
        &mut self,
        samples: Self::Samples,
    ) -> Result<Vec<Result<Sampled, LogitsFault>>, EngineError> {
        Ok(samples)
    }

    fn score(
        &mut self,
        logits: &CpuBuffer,
        requests: &[(usize, &ScoreRow)],
    ) -> Result<Self::Scores, EngineError> {
        let work = requests.len() * logits.cols * SAMPLING_COST;
        Ok(self.crew.map(requests.len(), work, |index| {
            let (row, request) = requests[index];
            sampler::score(logits.row(row), request)
        }))
    }

    fn scored(
        &mut self,
        scores: Self::Scores,
    ) -> Result<Vec<Result<TokenLogprob, LogitsFault>>, EngineError> {
        Ok(scores)
    }
}

impl Timeline for CpuBackend {
    type Mark = ();

    const OVERLAPS: bool = false;

    /// Operations finish before they return, so every mark has passed.
    fn mark(&mut self) -> Result<(), EngineError> {
        Ok(())
    }

    fn has_passed(&self, (): &()) -> bool {
        true
    }

    fn pass(&mut self, (): ()) -> Result<Option<Duration>, EngineError> {
        Ok(None)
    }

    /// As for marks, so one fence will do.
    fn fence(&mut self) -> Result<Fence, EngineError> {
        Ok(Fence::default())
    }
}
