//! Operations on single rows: the twin of `rows.cu`.
//!
//! Buffers are device addresses; rows are contiguous. Operations on activations are launched with
//! programmatic overlap: weights are read while the operation before still runs.

use super::compile::{Compiler, Constants, Defines};
use super::driver::address::Address;
use super::driver::device::Stream;
use super::driver::element::ElementType;
use super::driver::kernel::{Kernel, Launch, args};
use crate::config::HeadShape;
use crate::error::EngineError;

/// Elements of one vector access.
const VECTOR: usize = 8;

/// Threads of the kernels that only stream, a vector each.
const STREAM_THREADS: u32 = 256;

/// Threads of `gather_rows`, four vectors each.
const GATHER_THREADS: u32 = 128;
const GATHER_VECTORS: usize = 4;

/// Threads of `rope_and_cache`.
const ROPE_THREADS: usize = 128;

/// Heads that a thread of `rope_and_cache` has in flight at most.
const ROPE_HEADS_MAX: usize = 4;

/// What a grid has along y.
const GRID_Y_MAX: usize = 65_535;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[
    ("STREAM_THREADS", STREAM_THREADS as usize),
    ("GATHER_THREADS", GATHER_THREADS as usize),
    ("GATHER_VECTORS", GATHER_VECTORS),
    ("ROPE_THREADS", ROPE_THREADS),
    ("ROPE_HEADS_MAX", ROPE_HEADS_MAX),
];

/// The kernels for one model.
#[derive(Clone, Debug)]
pub(super) struct RowKernels {
    shape: RowShape,
    gather: Kernel,
    norm: Kernel,
    rope: Kernel,
    silu: Kernel,
    advance: Kernel,
}

/// What of a model these kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowShape {
    /// Of activations, weights and pages.
    pub element: ElementType,
    /// Elements of a hidden row.
    pub hidden: usize,
    /// How a row of queries, keys and values splits.
    pub heads: HeadShape,
    /// Tokens of a KV block.
    pub block_tokens: usize,
}

/// `hidden += delta; out = hidden / sqrt(mean(hidden^2) + eps) * weight`.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddNorm {
    /// `[rows, hidden]`, updated if there is a `delta`.
    pub hidden: Address,
    /// `[rows, hidden]`.
    pub delta: Option<Address>,
    /// `[hidden]`.
    pub weight: Address,
    /// Added to the mean square.
    pub eps: f32,
    /// `[rows, hidden]`.
    pub out: Address,
}

/// The rotation of queries and keys, and where keys and values go.
///
/// `cos`, `sin`, `positions` and `slots` are read while the operation before may still run: copies
/// or ordinary launches ahead of the step's first kernel must have written them.
#[derive(Clone, Copy, Debug)]
pub(super) struct RopeAndCache {
    /// `[rows, (heads + 2 * kv_heads) * head_dim]`; queries are rotated in place.
    pub qkv: Address,
    /// The layer's: `[blocks, 2, kv_heads, block_tokens, head_dim]`.
    pub pages: Address,
    /// Cosines, f32 `[positions, head_dim / 2]`.
    pub cos: Address,
    /// Sines, alike.
    pub sin: Address,
    /// u32 `[rows]`: each row's row of the tables.
    pub positions: Address,
    /// i32 `[rows]`: `block * block_tokens + offset`; -1 writes nothing.
    pub slots: Address,
    /// Norm of each head's queries.
    pub q_norm: Option<HeadNorm>,
    /// Norm of each head's keys.
    pub k_norm: Option<HeadNorm>,
}

/// The norm of single heads.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadNorm {
    /// `[head_dim]`.
    pub weight: Address,
    /// Added to the mean square.
    pub eps: f32,
}

// === impl RowKernels ===

impl RowKernels {
    /// Compiles, or finds, the kernels.
    ///
    /// # Errors
    /// As [`Compiler::module`]; [`EngineError::Device`] for a shape that the kernels don't do.
    pub(super) fn new(compiler: &Compiler, shape: RowShape) -> Result<Self, EngineError> {
        shape.validate()?;
        let module = compiler.module("rows.cu", &shape.defines())?;
        Ok(Self {
            shape,
            gather: module.kernel("gather_rows")?,
            norm: module.kernel("add_norm")?,
            rope: module.kernel("rope_and_cache")?,
            silu: module.kernel("silu_mul")?,
            advance: module.kernel("advance")?,
        })
    }

    /// `out[i] = table[index[i]]`: embeddings of tokens, or some rows of an activation.
    ///
    /// - `table`: `[any, cols]`; `index`: u32 `[rows]`; `out`: `[rows, cols]`.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn gather(
        &self,
        stream: &Stream,
        (table, index, out): (Address, Address, Address),
        rows: usize,
        cols: usize,
    ) -> Result<(), EngineError> {
        let vectors = vectors(cols)?;
        let columns = (vectors as usize).div_ceil(GATHER_VECTORS * GATHER_THREADS as usize);
        let launch = by_rows(rows, columns, GATHER_THREADS)?;
        launched(rows, || self.gather.launch(stream, launch, args![table, index, out, vectors]))
    }

    /// Adds and norms.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn add_norm(
        &self,
        stream: &Stream,
        it: AddNorm,
        rows: usize,
    ) -> Result<(), EngineError> {
        let launch = Launch {
            grid: [rows as u32, 1, 1],
            block: self.shape.norm_threads() as u32,
            shared_bytes: 0,
            cluster: 1,
            overlaps: true,
        };
        let AddNorm { hidden, delta, weight, eps, out } = it;
        let delta = delta.unwrap_or(Address::NONE);
        launched(rows, || self.norm.launch(stream, launch, args![hidden, delta, weight, out, eps]))
    }

    /// Norms heads, rotates, and writes keys and values to their slots.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn rope_and_cache(
        &self,
        stream: &Stream,
        it: RopeAndCache,
        rows: usize,
    ) -> Result<(), EngineError> {
        let launch = Launch {
            grid: [rows as u32, self.shape.rope_splits() as u32, 1],
            block: ROPE_THREADS as u32,
            shared_bytes: 0,
            cluster: 1,
            overlaps: true,
        };
        let norm = |norm: Option<HeadNorm>| {
            norm.map_or((Address::NONE, 0.0), |norm| (norm.weight, norm.eps))
        };
        let (q_weight, q_eps) = norm(it.q_norm);
        let (k_weight, k_eps) = norm(it.k_norm);
        launched(rows, || {
            self.rope.launch(
                stream,
                launch,
                args![
                    it.qkv,
                    it.pages,
                    it.cos,
                    it.sin,
                    it.positions,
                    it.slots,
                    q_weight,
                    k_weight,
                    q_eps,
                    k_eps
                ],
            )
        })
    }

    /// `out = silu(gate) * up`.
    ///
    /// - `gate_up`: `[rows, 2 * width]`, gates first; `out`: `[rows, width]`.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn silu_mul(
        &self,
        stream: &Stream,
        gate_up: Address,
        out: Address,
        rows: usize,
        width: usize,
    ) -> Result<(), EngineError> {
        let vectors = vectors(width)?;
        let launch = streaming(rows, vectors)?;
        launched(rows, || self.silu.launch(stream, launch, args![gate_up, out, vectors]))
    }

    /// `tokens[i] = sampled[source[i]]` where `source[i] >= 0`: tokens that the host hasn't seen.
    ///
    /// - `tokens`: u32 `[rows]`; `sampled`: u32 `[any]`; `source`: i32 `[rows]`.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn advance(
        &self,
        stream: &Stream,
        (tokens, sampled, source): (Address, Address, Address),
        rows: usize,
    ) -> Result<(), EngineError> {
        let launch = Launch {
            grid: [(rows as u32).div_ceil(STREAM_THREADS), 1, 1],
            block: STREAM_THREADS,
            shared_bytes: 0,
            cluster: 1,
            overlaps: true,
        };
        let count = rows as i32;
        launched(rows, || {
            self.advance.launch(stream, launch, args![tokens, sampled, source, count])
        })
    }
}

// === impl RowShape ===

impl RowShape {
    fn validate(&self) -> Result<(), EngineError> {
        let head_dim = self.heads.head_dim;
        if !self.hidden.is_multiple_of(VECTOR) {
            return Err(unsupported("hidden size", self.hidden, "a multiple of 8"));
        }
        if !head_dim.is_multiple_of(8) || !(16..=256).contains(&head_dim) {
            return Err(unsupported("head size", head_dim, "a multiple of 8 from 16 to 256"));
        }
        Ok(())
    }

    fn defines(&self) -> Defines {
        let HeadShape { heads, kv_heads, head_dim } = self.heads;
        Defines::of(CONSTANTS)
            .flag(self.element.flag())
            .with("HIDDEN", self.hidden)
            .with("NORM_THREADS", self.norm_threads())
            .with("HEADS", heads)
            .with("KV_HEADS", kv_heads)
            .with("HEAD_DIM", head_dim)
            .with("BLOCK_TOKENS", self.block_tokens)
            .with("ROPE_SPLITS", self.rope_splits())
    }

    /// A vector of the row for each thread where a block has enough: all loads are in flight at
    /// once. Never chosen by the number of rows, for sums are in the order of the threads.
    fn norm_threads(&self) -> usize {
        let vectors = self.hidden / VECTOR;
        let each = vectors.div_ceil(1024);
        vectors.div_ceil(each).next_multiple_of(32)
    }

    /// Blocks of `rope_and_cache` that share a row.
    fn rope_splits(&self) -> usize {
        let HeadShape { heads, kv_heads, head_dim } = self.heads;
        let half = head_dim / 2;
        let span = if half.is_multiple_of(8) { 8 } else { 4 };
        let group = (half / span).next_power_of_two();
        let turns = (heads + 2 * kv_heads).div_ceil(ROPE_THREADS / group);
        turns.div_ceil(ROPE_HEADS_MAX)
    }
}

fn vectors(cols: usize) -> Result<i32, EngineError> {
    if !cols.is_multiple_of(VECTOR) {
        return Err(unsupported("row length", cols, "a multiple of 8"));
    }
    Ok((cols / VECTOR) as i32)
}

fn streaming(rows: usize, vectors: i32) -> Result<Launch, EngineError> {
    by_rows(rows, (vectors as usize).div_ceil(STREAM_THREADS as usize), STREAM_THREADS)
}

fn by_rows(rows: usize, columns: usize, threads: u32) -> Result<Launch, EngineError> {
    if rows > GRID_Y_MAX {
        return Err(unsupported("number of rows", rows, "at most 65535"));
    }
    let grid = [columns as u32, rows as u32, 1];
    Ok(Launch { grid, block: threads, shared_bytes: 0, cluster: 1, overlaps: true })
}

/// Launches unless there is nothing to do: a grid has no empty side.
fn launched(
    rows: usize,
    launch: impl FnOnce() -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    if rows == 0 { Ok(()) } else { launch() }
}

fn unsupported(what: &str, got: usize, want: &str) -> EngineError {
    EngineError::Device(format!("a {what} of {got}: the kernels need {want}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn shape(hidden: usize, heads: usize, kv_heads: usize, head_dim: usize) -> RowShape {
        let heads = HeadShape { heads, kv_heads, head_dim };
        RowShape { element: ElementType::Bf16, hidden, heads, block_tokens: 16 }
    }

    #[rstest]
    #[case::llama_8b(4096, 512)]
    #[case::qwen_small(896, 128)]
    #[case::llama_70b(8192, 1024)]
    #[case::more_than_a_block(16_384, 1024)]
    #[case::between(10_240, 640)]
    #[case::tiny(64, 32)]
    fn a_norm_has_threads_for_its_row(#[case] hidden: usize, #[case] want: usize) {
        assert_eq!(shape(hidden, 32, 8, 128).norm_threads(), want);
    }

    #[rstest]
    #[case::llama_8b(32, 8, 128, 1)]
    #[case::llama_70b(64, 8, 128, 2)]
    #[case::wide_heads(8, 1, 256, 1)]
    #[case::odd_heads(12, 4, 80, 1)]
    fn a_row_of_heads_is_split(
        #[case] heads: usize,
        #[case] kv_heads: usize,
        #[case] head_dim: usize,
        #[case] want: usize,
    ) {
        assert_eq!(shape(4096, heads, kv_heads, head_dim).rope_splits(), want);
    }

    #[rstest]
    #[case::hidden(shape(100, 8, 8, 64))]
    #[case::head_of_no_vectors(shape(128, 8, 8, 20))]
    #[case::head_too_wide(shape(128, 8, 8, 264))]
    fn foreign_shapes_are_refused(#[case] shape: RowShape) {
        assert!(shape.validate().is_err());
    }
}
