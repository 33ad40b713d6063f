//! Attention over pages: single rows of many sequences, and rows of prompts.

use anyhow::Result;
use engine::backend::{Backend, Operations as _};
use engine::cuda::CudaBackend;
use engine::{CudaOptions, ModelConfig};
use kv_cache::BlockId;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::report::{Cost, KernelRow};
use super::rig::{BLOCK_TOKENS, Output, Piece, Rig, Room, blocks};
use super::{Lab, config_of, error, pick};

/// Rows of the table that queries, keys and values come from.
const TABLE: usize = 2048;

/// Queries, keys, weights of the sum and results are rounded.
const ERROR_MAX: f64 = 0.02;

/// Rows that are written to the cache at once.
const FILL_ROWS: usize = 8192;

/// What all layers' pages take at least where time is taken, so that they come from memory.
const PAGES_BYTES: usize = 512 << 20;
const LAYERS_MAX: usize = 16;

/// Reference rows of a sequence.
const CHECKED: usize = 48;

/// One sequence of a case: its context, and the position from which on rows are computed.
type Part = (usize, usize);

/// Heads, key/value heads, their size: Llama 3.1 8B, Qwen3 0.6B, then what is odd.
const HEADS: [(u32, u32, u32); 6] =
    [(32, 8, 128), (16, 8, 128), (14, 2, 64), (4, 2, 32), (9, 3, 24), (16, 1, 256)];

/// Of [`HEADS`], those that take every path through the kernels.
const HEADS_SMALL: [(u32, u32, u32); 3] = [HEADS[0], HEADS[2], HEADS[4]];

/// Checks and times all.
pub(super) fn run(lab: &mut Lab<'_>) -> Result<()> {
    if lab.is_small() {
        return small(lab);
    }
    let contexts = [1, 15, 16, 17, 129, 333, 1120, 4097];
    let decode: Vec<Part> = contexts.iter().map(|&context| (context, context - 1)).collect();
    let prefill: [Part; 5] = [(300, 0), (1000, 512), (77, 76), (17, 15), (2300, 2000)];
    // Few rows of many keys: divided among multiprocessors.
    let divided: [Part; 3] = [(4205, 4192), (2100, 2061), (100, 40)];
    for (heads, kv_heads, head_dim) in HEADS {
        let llama = config_of("llama-3.1-8b")?;
        let config = ModelConfig { layers: 2, heads, kv_heads, head_dim, ..llama };
        for window in [None, Some(256)] {
            let what = window.map_or(String::new(), |window| format!(", window {window}"));
            let case = format!("{heads}/{kv_heads} of {head_dim}{what}");
            check(lab, &config, ("decode_attention", case.clone()), &decode, window)?;
            check(lab, &config, ("prefill_attention", case.clone()), &prefill, window)?;
            check(
                lab,
                &config,
                ("prefill_attention", format!("{case}, few rows")),
                &divided,
                window,
            )?;
        }
    }
    if lab.is_timed() {
        times(lab)?;
    }
    Ok(())
}

/// Short contexts, and so many that a block has several items.
fn small(lab: &mut Lab<'_>) -> Result<()> {
    let contexts = (1..=48).map(|i| i * 5 % 49).chain([300, 700]);
    let decode: Vec<Part> = contexts.map(|context| (context, context - 1)).collect();
    let prefill: [Part; 4] = [(300, 0), (700, 300), (77, 76), (17, 15)];
    for (heads, kv_heads, head_dim) in HEADS_SMALL {
        let llama = config_of("llama-3.1-8b")?;
        let config = ModelConfig { layers: 2, heads, kv_heads, head_dim, ..llama };
        for window in [None, Some(128)] {
            let what = window.map_or(String::new(), |window| format!(", window {window}"));
            let case = format!("{heads}/{kv_heads} of {head_dim}{what}");
            check(lab, &config, ("decode_attention", case.clone()), &decode, window)?;
            check(lab, &config, ("prefill_attention", case), &prefill, window)?;
        }
    }
    Ok(())
}

struct Operands<B: Backend> {
    table: B::Matrix,
    qkv: B::Buffer,
    out: Output<B>,
}

impl<B: Backend> Operands<B> {
    fn new(rig: &mut Rig<B>, key: u64) -> Result<Self> {
        let shape = rig.config.head_shape();
        let table = rig.matrix((TABLE, shape.qkv_width()), key, 1.0)?;
        let (qkv, out) = (rig.backend.buffer(shape.qkv_width())?, rig.output(shape.q_width())?);
        rig.finish()?;
        Ok(Self { table, qkv, out })
    }

    /// Writes keys and values of whole sequences, in all layers.
    fn fill(&mut self, rig: &mut Rig<B>, sequences: &[Piece]) -> Result<()> {
        for group in groups(sequences, FILL_ROWS) {
            let batch = rig.batch(&group)?;
            for layer in 0..rig.config.layers as usize {
                // Some backends rotate in place.
                rig.load(&batch, &self.table, &mut self.qkv)?;
                let attention = rig.attention(layer, None);
                rig.backend.rope_and_cache(&batch, &attention, &mut self.qkv)?;
            }
        }
        Ok(())
    }

    /// Computes some rows in the last layer, whose keys and values are there already.
    fn apply(&mut self, rig: &mut Rig<B>, rows: &[Piece], window: Option<u32>) -> Result<Vec<f32>> {
        let count = rows.iter().map(|piece| piece.tokens.len()).sum();
        rig.poison(count, &mut self.out)?;
        let batch = rig.batch(rows)?;
        rig.load(&batch, &self.table, &mut self.qkv)?;
        let attention = rig.attention(rig.config.layers as usize - 1, window);
        let Self { qkv, out, .. } = self;
        rig.run(|backend| {
            backend.rope_and_cache(&batch, &attention, qkv)?;
            backend.attention(&batch, &attention, qkv, &mut out.buffer)
        })?;
        let mut all = rig.download(&self.out.buffer)?;
        // Steps of single rows are padded.
        all.truncate(count * rig.config.head_shape().q_width());
        Ok(all)
    }
}

/// Rows of sequences, at most so many together; a long sequence in several parts.
fn groups(sequences: &[Piece], rows_max: usize) -> Vec<Vec<Piece>> {
    let (mut groups, mut group, mut rows) = (Vec::new(), Vec::new(), 0);
    for sequence in sequences {
        let all: Vec<usize> = (0..sequence.tokens.len()).collect();
        for part in all.chunks(rows_max) {
            if rows + part.len() > rows_max || group.len() == 256 {
                groups.push(std::mem::take(&mut group));
                rows = 0;
            }
            rows += part.len();
            group.push(sequence.only(part));
        }
    }
    groups.push(group);
    groups
}

/// Sequences of these lengths, their blocks shuffled over the pool.
fn sequences(rng: &mut ChaCha8Rng, lengths: impl Iterator<Item = usize> + Clone) -> Vec<Piece> {
    let total: usize = lengths.clone().map(|length| length.next_multiple_of(BLOCK_TOKENS)).sum();
    let mut free: Vec<BlockId> = blocks(0..total);
    free.shuffle(rng);
    lengths
        .map(|length| Piece {
            tokens: (0..length).map(|_| rng.random_range(0..TABLE as u32)).collect(),
            positions: (0..length as u32).collect(),
            blocks: free.split_off(free.len() - length.div_ceil(BLOCK_TOKENS)),
        })
        .collect()
}

fn room(config: &ModelConfig, lengths: &[usize], rows: usize) -> Room {
    let slots = lengths.iter().map(|length| length.next_multiple_of(BLOCK_TOKENS)).sum();
    Room {
        config: config.clone(),
        rows: rows.max(FILL_ROWS.min(slots)),
        sequences: lengths.len().max(256),
        positions: lengths.iter().copied().max().unwrap_or(0),
        kv_tokens: slots,
    }
}

// --- Checks. ---

fn check(
    lab: &mut Lab<'_>,
    config: &ModelConfig,
    (kernel, case): (&str, String),
    parts: &[Part],
    window: Option<u32>,
) -> Result<()> {
    let key = lab.key();
    let lengths: Vec<usize> = parts.iter().map(|part| part.0).collect();
    let sequences = sequences(&mut lab.rng, lengths.iter().copied());
    let rows: Vec<Piece> = sequences
        .iter()
        .zip(parts)
        .map(|(sequence, &(context, first))| sequence.only(&(first..context).collect::<Vec<_>>()))
        .collect();
    let checked: Vec<Vec<usize>> =
        rows.iter().map(|piece| lab.some_rows(piece.tokens.len(), CHECKED)).collect();
    let some: Vec<Piece> =
        rows.iter().zip(&checked).map(|(piece, rows)| piece.only(rows)).collect();
    let room = room(config, &lengths, rows.iter().map(|piece| piece.tokens.len()).sum());
    let mut cpu = Rig::cpu(&room)?;
    let mut reference = Operands::new(&mut cpu, key)?;
    reference.fill(&mut cpu, &sequences)?;
    let wanted = reference.apply(&mut cpu, &some, window)?;
    let mut gpu = Rig::gpu(&room, lab.options())?;
    let mut operands = Operands::new(&mut gpu, key)?;
    operands.fill(&mut gpu, &sequences)?;
    let all = operands.apply(&mut gpu, &rows, window)?;
    let cols = config.head_shape().q_width();
    let (mut wanted, mut all) = (&wanted[..], &all[..]);
    let mut worst = (0.0, 0);
    for ((piece, checked), (context, _)) in rows.iter().zip(&checked).zip(parts) {
        let (theirs, ours);
        (theirs, wanted) = wanted.split_at(checked.len() * cols);
        (ours, all) = all.split_at(piece.tokens.len() * cols);
        let off = error(&pick(ours, cols, checked), theirs);
        // The first, where none is off.
        worst = if off > worst.0 { (off, *context) } else { worst };
    }
    let case = format!("{case}, worst at {}", worst.1);
    lab.row(KernelRow::new(kernel, case).with_error(worst.0, ERROR_MAX));
    Ok(())
}

// --- Times. ---

fn times(lab: &mut Lab<'_>) -> Result<()> {
    let config = config_of("llama-3.1-8b")?;
    let options = lab.options().clone();
    for (count, context) in [(1, 8192), (8, 1024), (64, 4096), (256, 1120), (1, 131_072)] {
        let us = decode_us(&config, &options, count, context)?;
        let cost = Cost { bytes: decode_bytes(&config, count, context), flops: 0.0 };
        let row = KernelRow::new("decode_attention", format!("{count} rows, {context} tokens"));
        let row = row.with_time(lab, us, cost);
        lab.row(row);
    }
    for tokens in [1024, 2048, 8192, 16_384] {
        let us = prefill_us(&config, &options, tokens)?;
        let cost = Cost { bytes: 0.0, flops: prefill_flops(&config, tokens) };
        let row = KernelRow::new("prefill_attention", format!("{tokens} tokens"));
        let row = row.with_time(lab, us, cost);
        lab.row(row);
    }
    for (rows, context) in [(16, 8192), (128, 8192), (16, 131_072)] {
        let us = time_us(&config, &options, &[(context, context - rows)])?;
        let cost = Cost { bytes: decode_bytes(&config, 1, context), flops: 0.0 };
        let row = KernelRow::new("prefill_attention", format!("{rows} rows, {context} tokens"));
        let row = row.with_time(lab, us, cost);
        lab.row(row);
    }
    Ok(())
}

/// Keys and values that `count` rows with a context read.
pub(crate) fn decode_bytes(config: &ModelConfig, count: usize, context: usize) -> f64 {
    (count * context * 2 * config.head_shape().kv_width() * 2) as f64
}

/// Scores and sums of a whole prompt, of which a row sees half.
pub(crate) fn prefill_flops(config: &ModelConfig, tokens: usize) -> f64 {
    2.0 * (tokens * tokens) as f64 * config.head_shape().q_width() as f64
}

/// Microseconds of one layer's attention of `count` rows that see `context` tokens each.
pub(crate) fn decode_us(
    config: &ModelConfig,
    options: &CudaOptions,
    count: usize,
    context: usize,
) -> Result<f64> {
    let parts = vec![(context, context - 1); count];
    time_us(config, options, &parts)
}

/// Microseconds of one layer's attention of a prompt.
pub(crate) fn prefill_us(
    config: &ModelConfig,
    options: &CudaOptions,
    tokens: usize,
) -> Result<f64> {
    time_us(config, options, &[(tokens, 0)])
}

fn time_us(config: &ModelConfig, options: &CudaOptions, parts: &[Part]) -> Result<f64> {
    let lengths: Vec<usize> = parts.iter().map(|part| part.0).collect();
    let tokens: usize = lengths.iter().sum();
    let layer_bytes = tokens * 2 * config.head_shape().kv_width() * 2;
    let layers = PAGES_BYTES.div_ceil(layer_bytes).clamp(2, LAYERS_MAX);
    let config = ModelConfig { layers: layers as u32, qk_norm: false, ..config.clone() };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let sequences = sequences(&mut rng, lengths.iter().copied());
    let rows: Vec<Piece> = sequences
        .iter()
        .zip(parts)
        .map(|(sequence, &(context, first))| sequence.only(&(first..context).collect::<Vec<_>>()))
        .collect();
    let count: usize = rows.iter().map(|piece| piece.tokens.len()).sum();
    let mut gpu = Rig::gpu(&room(&config, &lengths, count), options)?;
    let mut operands = Operands::<CudaBackend>::new(&mut gpu, 1)?;
    operands.fill(&mut gpu, &sequences)?;
    let batch = gpu.batch(&rows)?;
    gpu.load(&batch, &operands.table, &mut operands.qkv)?;
    let attentions: Vec<_> = (0..layers).map(|layer| gpu.attention(layer, None)).collect();
    let Operands { qkv, out, .. } = &mut operands;
    gpu.time_us(2 * layers, |backend, turn| {
        backend.attention(&batch, &attentions[turn % layers], qkv, &mut out.buffer)
    })
}
