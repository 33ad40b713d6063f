//! A backend with what one check needs: the same numbers on each, from the same keys.

use std::ops::Range;

use anyhow::Result;
use engine::backend::rope::Rope;
use engine::backend::{Backend, Norm, PagedHeads};
use engine::cuda::CudaBackend;
use engine::weights::WeightDtype;
use engine::weights::{Tensor, TensorData, Uniform};
use engine::{CpuBackend, CudaOptions, EngineError, ModelConfig, SequenceRows, StepBatch};
use kv_cache::{BlockId, KvCodec, KvLayout};

/// Token slots of a block.
pub(crate) const BLOCK_TOKENS: usize = 16;

/// bfloat16's NaN.
const NAN: [u8; 2] = [0xC0, 0x7F];

/// What a rig has room for.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// Its layers, heads and widths are the kernels'.
    pub(crate) config: ModelConfig,
    /// Rows of a step.
    pub(crate) rows: usize,
    /// Sequences of a step.
    pub(crate) sequences: usize,
    /// Positions of a sequence.
    pub(crate) positions: usize,
    /// Tokens of KV in all.
    pub(crate) kv_tokens: usize,
}

/// A backend and its model.
pub(crate) struct Rig<B: Backend> {
    pub(crate) backend: B,
    pub(crate) config: ModelConfig,
    rope: Rope,
}

/// A buffer that can be made to hold nothing but NaN, so that what isn't written shows.
pub(crate) struct Output<B: Backend> {
    pub(crate) buffer: B::Buffer,
    poison: B::Matrix,
}

/// Some rows of one sequence: a token for each, at a position.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) blocks: Vec<BlockId>,
}

// === impl Room ===

impl Room {
    /// For operations on rows alone.
    pub(crate) fn for_rows(config: &ModelConfig, rows: usize) -> Self {
        let config = config.clone();
        Self { config, rows, sequences: 16, positions: rows + 1, kv_tokens: rows + BLOCK_TOKENS }
    }

    fn layout(&self) -> KvLayout {
        self.config.kv_layout(BLOCK_TOKENS as u32, KvCodec::BF16)
    }

    fn blocks(&self) -> u32 {
        self.kv_tokens.div_ceil(BLOCK_TOKENS) as u32
    }
}

// === impl Rig ===

impl Rig<CpuBackend> {
    /// The reference.
    pub(crate) fn cpu(room: &Room) -> Result<Self> {
        Ok(Self::new(CpuBackend::new(&room.layout(), room.blocks(), None)?, room))
    }
}

impl Rig<CudaBackend> {
    /// What is checked.
    pub(crate) fn gpu(room: &Room, options: &CudaOptions) -> Result<Self> {
        let options = CudaOptions {
            step_rows_max: room.rows as u32,
            sequences_max: room.sequences as u32,
            context_tokens_max: Some(room.positions as u32),
            ..options.clone()
        };
        // As far as sequences of a measurement reach, whatever the model's own limit: rotations are
        // in a table that long.
        let config = ModelConfig { max_position: room.positions as u32, ..room.config.clone() };
        let room = Room { config, ..room.clone() };
        let (layout, blocks) = (room.layout(), Some(room.blocks()));
        Ok(Self::new(CudaBackend::new(&room.config, &layout, blocks, &options)?, &room))
    }

    /// Device time of one turn, microseconds: [`CudaBackend::recorded_us`].
    pub(crate) fn time_us(
        &mut self,
        turns: usize,
        operation: impl FnMut(&mut CudaBackend, usize) -> Result<(), EngineError>,
    ) -> Result<f64> {
        Ok(self.backend.recorded_us(turns, operation)?)
    }
}

impl<B: Backend> Rig<B> {
    fn new(backend: B, room: &Room) -> Self {
        let rope = Rope::new(&room.config.rope, room.config.head_dim as usize);
        Self { backend, config: room.config.clone(), rope }
    }

    /// A random matrix, uniform with this variance: the same numbers of the same key.
    pub(crate) fn matrix(
        &mut self,
        (rows, cols): (usize, usize),
        key: u64,
        variance: f32,
    ) -> Result<B::Matrix> {
        let uniform = Uniform { key, center: 0.0, spread: (3.0 * variance).sqrt() };
        let data = TensorData::Random(uniform);
        let tensor = Tensor { dtype: WeightDtype::Bf16, rows, cols, data };
        Ok(self.backend.matrix(&[tensor.into()])?)
    }

    /// A random vector around `center`.
    pub(crate) fn vector(&mut self, cols: usize, key: u64, center: f32) -> Result<B::Vector> {
        let data = TensorData::Random(Uniform { key, center, spread: 0.1 });
        let tensor = Tensor { dtype: WeightDtype::Bf16, rows: 1, cols, data };
        Ok(self.backend.vector(&[tensor])?)
    }

    /// A buffer for results.
    pub(crate) fn output(&mut self, cols: usize) -> Result<Output<B>> {
        let bytes = NAN.repeat(cols);
        let data = TensorData::Stored(&bytes);
        let poison = Tensor { dtype: WeightDtype::Bf16, rows: 1, cols, data };
        let poison = self.backend.matrix(&[poison.into()])?;
        Ok(Output { buffer: self.backend.buffer(cols)?, poison })
    }

    /// Ends loading; from here on there are batches.
    pub(crate) fn finish(&mut self) -> Result<()> {
        Ok(self.backend.finish_loading(&self.config, &self.rope)?)
    }

    /// Describes a step to the device.
    pub(crate) fn batch(&mut self, pieces: &[Piece]) -> Result<B::Batch> {
        self.prepare(&step(pieces))
    }

    pub(crate) fn prepare(&mut self, step: &StepBatch<'_>) -> Result<B::Batch> {
        Ok(self.backend.prepare(step, &self.rope)?)
    }

    /// Fills a buffer with rows of a table: those that the batch's tokens name.
    pub(crate) fn load(
        &mut self,
        batch: &B::Batch,
        table: &B::Matrix,
        out: &mut B::Buffer,
    ) -> Result<()> {
        Ok(self.backend.embed(batch, table, out)?)
    }

    /// Fills a buffer with NaN.
    pub(crate) fn poison(&mut self, rows: usize, output: &mut Output<B>) -> Result<()> {
        let batch = self.batch(&[Piece::rows(vec![0; rows])])?;
        Ok(self.backend.embed(&batch, &output.poison, &mut output.buffer)?)
    }

    /// Runs on the backend's threads.
    pub(crate) fn run<R: Send>(
        &mut self,
        operation: impl FnOnce(&mut B) -> Result<R, EngineError> + Send,
    ) -> Result<R> {
        Ok(self.backend.run(operation)?)
    }

    pub(crate) fn download(&mut self, buffer: &B::Buffer) -> Result<Vec<f32>> {
        Ok(self.backend.download(buffer)?)
    }

    /// One layer's attention without norms.
    pub(crate) fn attention(&self, layer: usize, window: Option<u32>) -> PagedHeads<'static, B> {
        let shape = self.config.head_shape();
        PagedHeads { layer: layer as u32, shape, window, q_norm: None, k_norm: None }
    }
}

/// A norm's weights with a usual epsilon.
pub(crate) fn norm<B: Backend>(weight: &B::Vector) -> Norm<'_, B> {
    Norm { weight, eps: 1e-5 }
}

// === impl Piece ===

impl Piece {
    /// Rows of the first sequence, for operations to which it doesn't matter.
    pub(crate) fn rows(tokens: Vec<u32>) -> Self {
        let count = tokens.len();
        Self { tokens, positions: (0..count as u32).collect(), blocks: blocks(0..count) }
    }

    /// Only some of the rows.
    pub(crate) fn only(&self, rows: &[usize]) -> Self {
        Self {
            tokens: rows.iter().map(|&row| self.tokens[row]).collect(),
            positions: rows.iter().map(|&row| self.positions[row]).collect(),
            blocks: self.blocks.clone(),
        }
    }
}

/// The blocks of some slots, in order.
pub(crate) fn blocks(slots: Range<usize>) -> Vec<BlockId> {
    let blocks = slots.start / BLOCK_TOKENS..slots.end.div_ceil(BLOCK_TOKENS);
    blocks.map(|block| BlockId(block as u32)).collect()
}

/// A step of some sequences' rows.
pub(crate) fn step(pieces: &[Piece]) -> StepBatch<'static> {
    let mut step = StepBatch::default();
    for piece in pieces {
        let first = step.tokens.len();
        step.tokens.extend(&piece.tokens);
        step.positions.extend(&piece.positions);
        step.sequences.push(SequenceRows {
            rows: first..step.tokens.len(),
            context_tokens: piece.positions.last().map_or(0, |last| last + 1),
            blocks: piece.blocks.clone().into(),
        });
    }
    step
}
