//! NVIDIA GPUs: the backend that this project is for.
//!
//! Activations, weights and KV have 16-bit elements and sums are 32-bit floats. Kernels are launched
//! on one stream; the host waits only for sampled tokens, by an event behind each step. Steps of
//! decode rows alone are recorded as CUDA graphs, one for each padded size.

mod attention;
mod driver;
mod gemm;
mod kv;
pub mod measure;
mod options;
mod rows;
mod sampling;
mod step;
mod tensor;
mod weights;

#[cfg(test)]
mod testing;

use std::collections::HashMap;
use std::sync::Arc;

use kv_cache::{BlockId, Fence, KvLayout, KvRegion};
use words::TokenLogprob;

use self::attention::PagedAttention;
use self::driver::compiler::Compiler;
use self::driver::device::{Device, Stream};
use self::driver::graph::Graph;
use self::driver::memory::DeviceMemory;
use self::gemm::choose::Projections;
use self::kv::CudaKv;
use self::rows::{AddNorm, HeadNorm, RopeAndCache, RowKernels, RowShape};
use self::sampling::{Pending, Sampler};
use self::step::batch::{self, BatchMemory, KeptRows, Shape, StepLimits, WordRing};
use self::step::streams::{StepMark, StepStreams, StreamId};
use self::step::turns::Turns;
use self::weights::load::{self, Loader};
use crate::backend::{Attention, Backend, Linear, Norm, Pass};
use crate::batch::{SampleRow, Sampled, ScoreRow, StepBatch};
use crate::config::ModelConfig;
use crate::error::{EngineError, LogitsFault};
use crate::rope::Rope;
use crate::weights::Tensor;

pub use self::driver::element::ElementType;
pub use self::driver::probe::{CudaUnavailable, GpuInfo, first_usable, libraries, probe};
pub use self::options::CudaOptions;
pub use self::step::batch::CudaBatch;
pub use self::step::partition::{PartitionSeat, SmPartition, SmSplit};
pub use self::tensor::{CudaBuffer, CudaMatrix, CudaVector};

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

    /// Binds the calling thread, which has to be whenever it changes.
    fn bind(&self) -> Result<(), EngineError> {
        self.device.bind()
    }

    fn ready(&self) -> Result<&Ready, EngineError> {
        self.ready.as_ref().ok_or_else(|| {
            EngineError::Device("a step was submitted before the model was loaded".to_owned())
        })
    }

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

    fn head_norm(norm: Option<&Norm<'_, Self>>) -> Option<HeadNorm> {
        norm.map(|norm| HeadNorm { weight: norm.weight.address(), eps: norm.eps })
    }
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Positions that a sequence may have.
fn positions_max(config: &ModelConfig, options: &CudaOptions) -> usize {
    options.context_tokens_max.unwrap_or(u32::MAX).min(config.max_position) as usize
}

impl Backend for CudaBackend {
    type Matrix = CudaMatrix;
    type Vector = CudaVector;
    type Buffer = CudaBuffer;
    type Batch = CudaBatch;
    type Samples = Pending;
    type Scores = Pending;
    type Mark = StepMark;

    // 256 rows of a 128,256-token vocabulary are 131 MB.
    const LOGIT_ROWS_MAX: usize = 256;

    const OVERLAPS: bool = true;

    fn matrix(&mut self, parts: &[Tensor<'_>]) -> Result<CudaMatrix, EngineError> {
        let (rows, cols) = (parts.iter().map(|part| part.rows).sum(), parts[0].cols);
        assert!(parts.iter().all(|part| part.cols == cols), "stacked matrices are equally wide");
        let memory = self.take(rows * cols, parts)?;
        Ok(CudaMatrix { memory, rows, cols })
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
        self.device.synchronize()?;
        self.ready = Some(Ready { kv, attention, cos, sin });
        Ok(())
    }

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
        self.projections.linear(&self.stream, x, &layer, out)
    }

    fn rope_and_cache(
        &mut self,
        batch: &CudaBatch,
        attention: &Attention<'_, Self>,
        qkv: &mut CudaBuffer,
    ) -> Result<(), EngineError> {
        let Ready { kv, cos, sin, .. } = self.ready()?;
        let it = RopeAndCache {
            qkv: qkv.address(),
            // Attention reads keys from the pages.
            keys_in_place: false,
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
        attention: &Attention<'_, Self>,
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
        attention: &Attention<'_, Self>,
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
        if self.projections.gated(&self.stream, x, &layer, out)? {
            return Ok(());
        }
        self.projections.linear(&self.stream, x, &layer, gate_up)?;
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
        self.projections.logits(&self.stream, from, x.element, head, out)
    }

    fn sample(
        &mut self,
        logits: &CudaBuffer,
        first: usize,
        requests: &[(usize, &SampleRow<'_>)],
    ) -> Result<Pending, EngineError> {
        if first + requests.len() > self.samples_max {
            let (wanted, most) = (first + requests.len(), self.samples_max);
            return Err(EngineError::Device(format!("{wanted} samples in a step of {most}")));
        }
        let mut list = self.sampler.requests(requests.len());
        requests.iter().for_each(|(row, request)| list.choose(*row, request));
        let tokens = self.tokens.at(4 * first);
        self.sampler.submit(&self.stream, logits.address(), &list, tokens)
    }

    fn sampled(
        &mut self,
        samples: Pending,
    ) -> Result<Vec<Result<Sampled, LogitsFault>>, EngineError> {
        self.bind()?;
        self.sampler.finish(samples)
    }

    fn score(
        &mut self,
        logits: &CudaBuffer,
        requests: &[(usize, &ScoreRow)],
    ) -> Result<Pending, EngineError> {
        let mut list = self.sampler.requests(requests.len());
        requests.iter().for_each(|(row, request)| list.score(*row, request));
        let tokens = self.tokens.at(4 * self.samples_max);
        self.sampler.submit(&self.stream, logits.address(), &list, tokens)
    }

    fn scored(
        &mut self,
        scores: Pending,
    ) -> Result<Vec<Result<TokenLogprob, LogitsFault>>, EngineError> {
        self.bind()?;
        self.sampler.finish_scores(scores)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        self.bind()?;
        self.ready()?.kv.copy_block(&self.stream, from, to)
    }

    fn is_shared(&self) -> bool {
        self.streams.are_shared()
    }

    fn expects_others(&self) -> bool {
        self.streams.expect_others()
    }

    fn mark(&mut self) -> Result<StepMark, EngineError> {
        self.streams.mark()
    }

    fn has_passed(&self, mark: &StepMark) -> bool {
        mark.has_passed()
    }

    fn pass(&mut self, mark: StepMark) -> Result<(), EngineError> {
        self.bind()?;
        self.streams.pass(&mark)
    }

    fn fence(&mut self) -> Result<Fence, EngineError> {
        self.ready()?.kv.fence(&self.stream)
    }

    fn download(&mut self, buffer: &CudaBuffer) -> Result<Vec<f32>, EngineError> {
        self.bind()?;
        load::download(&self.stream, buffer)
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
