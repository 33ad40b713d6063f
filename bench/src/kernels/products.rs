//! Products with weights, as the engine chooses among kernel and library.

use anyhow::Result;
use engine::backend::{Backend, Choosing as _, Linear};
use engine::cuda::{CudaBackend, ElementType};
use engine::{CudaOptions, EngineError, ModelConfig};

use super::report::{Cost, KernelRow};
use super::rig::{Output, Piece, Rig, Room};
use super::{Lab, config_of, error, pick};

/// Rows of the table that inputs come from.
const TABLE: usize = 512;

/// Inputs and results rounded, sums in 32 bits in another order.
const ERROR_MAX: f64 = 0.008;

/// Of a gated product: gates and ups rounded, too, where they take two steps.
const GATED_ERROR_MAX: f64 = 0.02;

/// Reference rows of a case.
const CHECKED: usize = 12;

/// Copies of a weight take more than any cache together, so that it comes from memory.
const COPIES_BYTES: usize = 256 << 20;

/// A model's product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Rows of the weight.
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// Halves are gates and ups.
    Gated,
    /// 32-bit floats.
    Logits,
}

/// Checks and times all.
pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    if lab.is_small() {
        return small(lab);
    }
    let config = config_of("llama-3.1-8b")?;
    for weight in weights(&config) {
        check(lab, &config, weight, &[1, 8, 33, 64, 128, 200, 256, 2048])?;
    }
    // Sizes that no tile divides.
    let odd = config_of("tiny")?;
    for weight in weights(&odd) {
        check(lab, &odd, weight, &[1, 5, 77])?;
    }
    Ok(())
}

/// Those that the project's own kernels compute: none of the portable ones.
fn small(lab: &mut Lab<'_>) -> Result<()> {
    if lab.options().portable {
        return Ok(());
    }
    let config = ModelConfig {
        hidden_size: 2048,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        intermediate_size: 8192,
        vocab_size: 4096,
        ..config_of("llama-3.1-8b")?
    };
    for weight in weights(&config) {
        // More rows are the library's, but for gates and long sums.
        let has_more = weight.kind != Kind::Plain || weight.inputs >= 8192;
        let sizes: &[usize] = if has_more { &[1, 33, 64, 100] } else { &[1, 33, 64] };
        check(lab, &config, weight, sizes)?;
    }
    Ok(())
}

/// The products of a model's layer, and its last.
pub(crate) fn weights(config: &ModelConfig) -> [Weight; 5] {
    let (heads, hidden) = (config.head_shape(), config.hidden_size as usize);
    let (width, vocab) = (config.intermediate_size as usize, config.vocab_size as usize);
    let weight = |name, kind, outputs, inputs| Weight { name, kind, outputs, inputs };
    [
        weight("qkv", Kind::Plain, heads.qkv_width(), hidden),
        weight("output", Kind::Plain, hidden, heads.q_width()),
        weight("gate and up", Kind::Gated, 2 * width, hidden),
        weight("down", Kind::Plain, hidden, width),
        weight("logits", Kind::Logits, vocab, hidden),
    ]
}

// === impl Weight ===

impl Weight {
    pub(crate) fn bytes(self) -> usize {
        self.outputs * self.inputs * 2
    }

    pub(crate) fn out_element(self) -> ElementType {
        if self.kind == Kind::Logits { ElementType::F32 } else { ElementType::Bf16 }
    }

    /// Columns of what comes out.
    fn cols(self) -> usize {
        if self.kind == Kind::Gated { self.outputs / 2 } else { self.outputs }
    }

    /// Weights, inputs and results.
    pub(super) fn cost(self, rows: usize) -> Cost {
        let out_bytes = self.cols() * self.out_element().bytes();
        let activations = rows * (self.inputs * 2 + out_bytes);
        let flops = 2.0 * (rows * self.outputs) as f64 * self.inputs as f64;
        Cost { bytes: (self.bytes() + activations) as f64, flops }
    }
}

/// One product on one backend.
struct Operands<B: Backend> {
    weight: Weight,
    table: B::Matrix,
    matrices: Vec<B::Matrix>,
    x: B::Buffer,
    gate_up: B::Buffer,
    out: Out<B>,
}

enum Out<B: Backend> {
    Elements(Output<B>),
    Logits(B::Buffer),
}

impl<B: Backend> Operands<B> {
    fn new(rig: &mut Rig<B>, weight: Weight, copies: usize, keys: [u64; 2]) -> Result<Self> {
        let Weight { outputs, inputs, .. } = weight;
        let table = rig.matrix((TABLE, inputs), keys[0], 1.0)?;
        let matrices = (0..copies)
            .map(|_| rig.matrix((outputs, inputs), keys[1], 1.0 / inputs as f32))
            .collect::<Result<_>>()?;
        let x = rig.backend.buffer(inputs)?;
        // Only what is gated in two steps takes it.
        let gate_up = rig.backend.buffer(if weight.kind == Kind::Gated { outputs } else { 8 })?;
        let out = match weight.kind {
            Kind::Logits => Out::Logits(rig.backend.logit_buffer(outputs)?),
            _ => Out::Elements(rig.output(weight.cols())?),
        };
        rig.finish()?;
        Ok(Self { weight, table, matrices, x, gate_up, out })
    }

    fn load(&mut self, rig: &mut Rig<B>, tokens: Vec<u32>) -> Result<()> {
        if let Out::Elements(out) = &mut self.out {
            rig.poison(tokens.len(), out)?;
        }
        let batch = rig.batch(&[Piece::rows(tokens)])?;
        rig.load(&batch, &self.table, &mut self.x)
    }

    fn apply(&mut self, backend: &mut B, rows: &[usize], copy: usize) -> Result<(), EngineError> {
        let Self { weight, matrices, x, gate_up, out, .. } = self;
        let matrix = &matrices[copy % matrices.len()];
        let layer = Linear { weight: matrix, bias: None };
        match (weight.kind, out) {
            (Kind::Logits, Out::Logits(out)) => backend.logits(x, rows, matrix, out),
            (Kind::Gated, Out::Elements(out)) => backend.gated(x, layer, gate_up, &mut out.buffer),
            (_, Out::Elements(out)) => backend.linear(x, layer, &mut out.buffer),
            (_, Out::Logits(out)) => backend.linear(x, layer, out),
        }
    }

    fn results(&mut self, rig: &mut Rig<B>, tokens: Vec<u32>) -> Result<Vec<f32>> {
        let rows: Vec<usize> = (0..tokens.len()).collect();
        self.load(rig, tokens)?;
        rig.backend.run(|backend| self.apply(backend, &rows, 0))?;
        match &self.out {
            Out::Elements(out) => rig.download(&out.buffer),
            Out::Logits(out) => rig.download(out),
        }
    }
}

fn check(lab: &mut Lab<'_>, config: &ModelConfig, weight: Weight, sizes: &[usize]) -> Result<()> {
    let most = sizes.iter().copied().max().unwrap_or(1);
    let keys = [lab.key(), lab.key()];
    let room = Room::for_rows(config, most);
    let mut cpu = Rig::cpu(&room)?;
    let mut reference = Operands::new(&mut cpu, weight, 1, keys)?;
    let mut gpu = Rig::gpu(&room, lab.options())?;
    let copies = if lab.is_timed() { COPIES_BYTES.div_ceil(weight.bytes()).min(16) } else { 1 };
    let mut operands = Operands::new(&mut gpu, weight, copies, keys)?;
    let error_max = if weight.kind == Kind::Gated { GATED_ERROR_MAX } else { ERROR_MAX };
    for &rows in sizes.iter().filter(|rows| weight.kind != Kind::Logits || **rows <= 256) {
        let (tokens, checked) = (lab.tokens(rows, TABLE), lab.some_rows(rows, CHECKED));
        let picked = checked.iter().map(|&row| tokens[row]).collect();
        let wanted = reference.results(&mut cpu, picked)?;
        let got = operands.results(&mut gpu, tokens)?;
        let got = pick(&got, weight.cols(), &checked);
        let case = format!("{rows} x {} x {}", weight.outputs, weight.inputs);
        let mut row = KernelRow::new(weight.name, case).with_error(error(&got, &wanted), error_max);
        if lab.is_timed() {
            let us = time_us(&mut gpu, &mut operands, rows)?;
            row = row.with_time(lab, us, weight.cost(rows));
        }
        lab.row(row);
    }
    Ok(())
}

fn time_us(
    gpu: &mut Rig<CudaBackend>,
    operands: &mut Operands<CudaBackend>,
    rows: usize,
) -> Result<f64> {
    let turns =
        if rows > 512 { operands.matrices.len().min(4) } else { 2 * operands.matrices.len() };
    let rows: Vec<usize> = (0..rows).collect();
    gpu.time_us(turns, |backend, turn| operands.apply(backend, &rows, turn))
}

/// Times a model's product at several numbers of rows: rows, and microseconds.
pub(crate) fn times_us(
    config: &ModelConfig,
    options: &CudaOptions,
    weight: Weight,
    sizes: &[usize],
) -> Result<Vec<(usize, f64)>> {
    let most = sizes.iter().copied().max().unwrap_or(1);
    let mut gpu = Rig::gpu(&Room::for_rows(config, most), options)?;
    let copies = COPIES_BYTES.div_ceil(weight.bytes()).min(16);
    let mut operands = Operands::new(&mut gpu, weight, copies, [1, 2])?;
    sizes
        .iter()
        .filter(|rows| weight.kind != Kind::Logits || **rows <= CudaBackend::LOGIT_ROWS_MAX)
        .map(|&rows| {
            operands.load(&mut gpu, (0..rows).map(|row| (row % TABLE) as u32).collect())?;
            Ok((rows, time_us(&mut gpu, &mut operands, rows)?))
        })
        .collect()
}
