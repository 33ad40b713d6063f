//! NVIDIA GPUs: the backend that this project is for.
//!
//! Activations, weights and KV have 16-bit elements and sums are 32-bit floats. Kernels are launched
//! on one stream; the host waits only for sampled tokens, by an event behind each step. Steps of
//! decode rows alone are recorded as CUDA graphs, one for each padded size.

mod attention;
mod compile;
mod driver;
mod gemm;
mod kv;
mod libraries;
pub mod measure;
mod memory;
mod options;
mod rows;
mod sampling;
mod step;
mod weights;

#[cfg(test)]
mod testing;

use std::collections::HashMap;
use std::sync::Arc;

use kv_cache::KvLayout;

use self::attention::PagedAttention;
use self::compile::Compiler;
use self::driver::device::{Device, Stream};
use self::driver::graph::Graph;
use self::driver::memory::DeviceMemory;
use self::gemm::Epilogue;
use self::gemm::choose::{Projection, Projections};
use self::kv::CudaKv;
use self::memory::positions_max;
use self::rows::{AddNorm, HeadNorm, RopeAndCache, RowKernels, RowShape};
use self::sampling::Sampler;
use self::step::batch::{BatchMemory, KeptRows, Shape, StepLimits, WordRing};
use self::step::streams::{StepStreams, StreamId};
use self::step::turns::Turns;
use self::weights::load::{self, Loader};
use crate::backend::rope::Rope;
use crate::backend::{Choosing as _, Linear, Norm, Operations, PagedHeads, Pass};
use crate::batch::StepBatch;
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::neighbours::Neighbours;

pub use self::driver::element::ElementType;
pub use self::driver::probe::{GpuInfo, first_usable, libraries, probe};
pub use self::libraries::CudaUnavailable;
pub use self::options::CudaOptions;
pub use self::step::batch::CudaBatch;
pub use self::step::partition::{PartitionSeat, SmPartition, SmSplit};
pub use self::weights::tensor::{CudaBuffer, CudaMatrix, CudaVector};

/// Recordings that are kept; all are made again when there are more. A recording takes some 100 KB of
/// device memory; a model in use has a few dozen shapes, each on up to five streams.
const RECORDINGS_MAX: usize = 512;

/// Computes on one GPU.
pub struct CudaBackend {
    device: Device,
    streams: StepStreams,
    /// The present one of them.
    stream: Arc<Stream>,
    element: ElementType,
    layout: KvLayout,
    blocks_wanted: Option<u32>,
    options: CudaOptions,
    /// Device memory that weights and activations took, bytes.
    taken_bytes: u64,
    compiler: Compiler,
    loader: Option<Loader>,
    rows: RowKernels,
    projections: Projections,
    sampler: Sampler,
    /// u32: the tokens that the latest step chose, then room for those of scores.
    tokens: DeviceMemory,
    samples_max: usize,
    batches: BatchMemory,
    picks: WordRing,
    /// `[LOGIT_ROWS_MAX, hidden]`: the rows that logits are computed of.
    picked: CudaBuffer,
    recordings: HashMap<(StreamId, Shape), Recording>,
    /// What has its memory last.
    ready: Option<Ready>,
}

/// What comes when the weights are loaded.
struct Ready {
    kv: Arc<CudaKv>,
    attention: PagedAttention,
    /// f32 `[positions, head_dim / 2]`.
    cos: DeviceMemory,
    /// f32 `[positions, head_dim / 2]`.
    sin: DeviceMemory,
}

/// What is known of decode steps of one shape.
enum Recording {
    /// One ran as it came, so that whatever chooses at its first use has chosen.
    Seen,
    /// They are launched as one.
    Made(Graph),
}

// === impl CudaBackend ===

impl CudaBackend {
    /// Opens a GPU for a model.
    ///
    /// - `blocks`: of KV; `None` for as many as there is memory for once the weights are loaded.
    ///
    /// # Errors
    /// [`EngineError::Device`] says what is missing, or what the kernels can't do of this model;
    /// [`EngineError::Limits`] for a type of KV that they don't have.
    pub fn new(
        config: &ModelConfig,
        layout: &KvLayout,
        blocks: Option<u32>,
        options: &CudaOptions,
    ) -> Result<Self, EngineError> {
        let element = load::computing_in(config, &layout.codec);
        load::check_pages(layout, element)?;
        let device = Device::open(options.ordinal, &options.library_folders)?;
        let compiler = Compiler::new(&device, options.kernel_cache.clone())?;
        let streams = StepStreams::new(
            &device,
            options.partition.as_ref(),
            Turns::with_others(&device, options),
        )?;
        let stream = Arc::clone(streams.current());
        let (hidden, vocab) = (config.hidden_size as usize, config.vocab_size as usize);
        let samples_max = (options.sequences_max as usize).max(Self::LOGIT_ROWS_MAX);
        let shape = RowShape {
            element,
            hidden,
            heads: config.head_shape(),
            block_tokens: layout.block_tokens() as usize,
        };
        let limits = StepLimits {
            rows_max: options.step_rows_max as usize,
            sequences_max: options.sequences_max as usize,
            table_max: layout.blocks_for(positions_max(config, options)),
            block_tokens: layout.block_tokens() as usize,
        };
        let picked = CudaBuffer::new(&device, element, Self::LOGIT_ROWS_MAX, hidden)?;
        Ok(Self {
            rows: RowKernels::new(&compiler, shape)?,
            projections: Projections::new(&compiler, element, config, options)?,
            sampler: Sampler::new(&compiler, &stream, (vocab, vocab), Self::LOGIT_ROWS_MAX)?,
            tokens: DeviceMemory::new(&device, (samples_max + Self::LOGIT_ROWS_MAX) * 4)?,
            samples_max,
            loader: Some(Loader::new(&compiler, element)?),
            batches: BatchMemory::new(&device, limits)?,
            picks: WordRing::new(&device, Self::LOGIT_ROWS_MAX)?,
            picked,
            recordings: HashMap::new(),
            ready: None,
            taken_bytes: 0,
            layout: layout.clone(),
            blocks_wanted: blocks,
            options: options.clone(),
            element,
            compiler,
            streams,
            stream,
            device,
        })
    }

    /// Other processes' engines on the GPU, as far as turns are taken with them.
    pub(crate) fn neighbours(&self) -> Neighbours {
        self.streams.neighbours()
    }

    /// Binds the calling thread, which has to be whenever it changes.
    fn bind(&self) -> Result<(), EngineError> {
        self.device.bind()
    }

    fn ready(&self) -> Result<&Ready, EngineError> {
        self.ready.as_ref().ok_or_else(|| {
            EngineError::Device("a step was submitted before the model was loaded".to_owned())
        })
    }

    /// Says whether there is something that does it at once.
    fn project(
        &self,
        x: &CudaBuffer,
        layer: &Linear<'_, Self>,
        out: &CudaBuffer,
        epilogue: Epilogue,
    ) -> Result<bool, EngineError> {
        let Linear { weight, bias } = *layer;
        let product = Projection { x: x.address(), rows: x.rows, weight, bias, out, epilogue };
        self.projections.run(&self.stream, &product)
    }

    fn head_norm(norm: Option<&Norm<'_, Self>>) -> Option<HeadNorm> {
        norm.map(|norm| HeadNorm { weight: norm.weight.address(), eps: norm.eps })
    }
}

impl Operations for CudaBackend {
    type Batch = CudaBatch;

    fn prepare(&mut self, batch: &StepBatch<'_>, _: &Rope) -> Result<CudaBatch, EngineError> {
        self.bind()?;
        self.streams.begin(batch)?;
        self.stream = Arc::clone(self.streams.current());
        let mut prepared = self.batches.upload(&self.stream, batch)?;
        if let (Some(ready), Some(rows)) = (&mut self.ready, &mut prepared.prefill) {
            ready.attention.plan(&self.stream, rows)?;
        }
        if let Some(sources) = prepared.sources {
            let feed = (prepared.tokens, self.tokens.address(), sources);
            self.rows.advance(&self.stream, feed, prepared.rows)?;
        }
        Ok(prepared)
    }

    fn run<R: Send>(&mut self, step: impl FnOnce(&mut Self) -> R + Send) -> R {
        let result = step(self);
        self.streams.pause();
        result
    }

    fn layers(
        &mut self,
        batch: &CudaBatch,
        operations: impl FnOnce(&mut Self, Pass) -> Result<(), EngineError>,
    ) -> Result<Pass, EngineError> {
        // What is recorded runs on the multiprocessors of the stream it was recorded from.
        let key = batch.shape.map(|shape| (self.streams.id(), shape));
        let known = key.and_then(|key| Some((key, self.recordings.get(&key)?)));
        match (key, known) {
            (_, Some((_, Recording::Made(graph)))) => graph.launch(&self.stream)?,
            (_, Some((key, Recording::Seen))) => {
                let stream = Arc::clone(&self.stream);
                let graph = stream.capture(|| operations(self, Pass::Recorded))?;
                graph.launch(&self.stream)?;
                if self.recordings.len() >= RECORDINGS_MAX {
                    // All recordings of a step that is still running have been launched before: they
                    // are forgotten by the driver when it is done.
                    self.recordings.clear();
                }
                self.recordings.insert(key, Recording::Made(graph));
            }
            (key, None) => {
                operations(self, Pass::Live)?;
                key.map(|key| self.recordings.insert(key, Recording::Seen));
                return Ok(Pass::Live);
            }
        }
        Ok(Pass::Recorded)
    }

    fn embed(
        &mut self,
        batch: &CudaBatch,
        table: &CudaMatrix,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        out.resize(batch.rows);
        let operands = (table.address(), batch.tokens, out.address());
        self.rows.gather(&self.stream, operands, batch.rows, table.cols)
    }

    fn add_norm(
        &mut self,
        hidden: &mut CudaBuffer,
        delta: Option<&CudaBuffer>,
        norm: Norm<'_, Self>,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        out.resize(hidden.rows);
        let it = AddNorm {
            hidden: hidden.address(),
            delta: delta.map(CudaBuffer::address),
            weight: norm.weight.address(),
            eps: norm.eps,
            out: out.address(),
        };
        self.rows.add_norm(&self.stream, it, hidden.rows)
    }

    fn linear(
        &mut self,
        x: &CudaBuffer,
        layer: Linear<'_, Self>,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        out.resize(x.rows);
        self.project(x, &layer, out, Epilogue::Plain).map(|_| ())
    }

    fn rope_and_cache(
        &mut self,
        batch: &CudaBatch,
        attention: &PagedHeads<'_, Self>,
        qkv: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        let Ready { kv, cos, sin, .. } = self.ready()?;
        let it = RopeAndCache {
            qkv: qkv.address(),
            pages: kv.layer(attention.layer),
            cos: cos.address(),
            sin: sin.address(),
            positions: batch.positions,
            slots: batch.slots,
            q_norm: Self::head_norm(attention.q_norm.as_ref()),
            k_norm: Self::head_norm(attention.k_norm.as_ref()),
        };
        self.rows.rope_and_cache(&self.stream, it, batch.rows)
    }

    fn attention(
        &mut self,
        batch: &CudaBatch,
        attention: &PagedHeads<'_, Self>,
        qkv: &CudaBuffer,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        out.resize(batch.rows);
        let stream = Arc::clone(&self.stream);
        let Some(ready) = &mut self.ready else {
            return Err(EngineError::Device("the model isn't loaded".to_owned()));
        };
        let view = (attention.layer, attention.window);
        ready.attention.run(&stream, batch, view, qkv, out)
    }

    fn keep(
        &mut self,
        batch: &CudaBatch,
        x: &CudaBuffer,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        let KeptRows { rows, alone } = batch.kept()?;
        out.resize(alone.count);
        let operands = (x.address(), *rows, out.address());
        self.rows.gather(&self.stream, operands, alone.count, x.cols)
    }

    fn attention_of_kept(
        &mut self,
        batch: &CudaBatch,
        attention: &PagedHeads<'_, Self>,
        qkv: &CudaBuffer,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        let kept = batch.kept()?;
        out.resize(kept.alone.count);
        let view = (attention.layer, attention.window);
        self.ready()?.attention.run_kept(&self.stream, kept, view, qkv, out)
    }

    fn gated(
        &mut self,
        x: &CudaBuffer,
        layer: Linear<'_, Self>,
        gate_up: &mut CudaBuffer,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        out.resize(x.rows);
        gate_up.resize(x.rows);
        if self.project(x, &layer, out, Epilogue::Gated)? {
            return Ok(());
        }
        self.project(x, &layer, gate_up, Epilogue::Plain)?;
        let (from, to) = (gate_up.address(), out.address());
        self.rows.silu_mul(&self.stream, from, to, x.rows, out.cols)
    }

    fn logits(
        &mut self,
        x: &CudaBuffer,
        rows: &[usize],
        head: &CudaMatrix,
        out: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        out.resize(rows.len());
        let is_prefix = rows.iter().copied().eq(0..rows.len());
        let from = if is_prefix {
            x.address()
        } else {
            let index = self.picks.put(&self.stream, rows.iter().map(|&row| row as u32))?;
            let operands = (x.address(), index, self.picked.address());
            self.rows.gather(&self.stream, operands, rows.len(), x.cols)?;
            self.picked.address()
        };
        let product = Projection {
            x: from,
            rows: out.rows,
            weight: head,
            bias: None,
            out,
            epilogue: Epilogue::F32,
        };
        self.projections.run(&self.stream, &product).map(|_| ())
    }
}
