//! Causal attention of many query tokens over pages, on any GPU and for any head size: the twin of
//! `attention/portable.cu`.

use super::validate_heads;
use crate::backend::cuda::compile::{Compiler, Constants, Defines};
use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::Stream;
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::kernel::{Kernel, Launch, args};
use crate::config::HeadShape;
use crate::error::EngineError;

const THREADS: u32 = 128;

/// Keys that a block takes at a time: 64 measured no faster and spills registers.
const TOKENS: usize = 32;

/// What a grid has along y.
const GRID_Y_MAX: usize = 65_535;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[("THREADS", THREADS as usize), ("TOKENS", TOKENS)];

/// The kernel for one model.
#[derive(Clone, Debug)]
pub(super) struct PortableAttention {
    shape: PortableShape,
    kernel: Kernel,
}

/// What of a model the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortableShape {
    /// Of activations and pages: 16 bits.
    pub element: ElementType,
    /// Heads, key/value heads, their size: a multiple of 8 from 16 to 256.
    pub heads: HeadShape,
    /// Tokens of a KV block: 16, or a multiple of 32.
    pub block_tokens: usize,
}

/// One layer's attention of some sequences' rows. Addresses are of device memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct PrefillRead<'a> {
    /// `[any, qkv_width]`: the queries, rotated.
    pub qkv: Address,
    /// The layer's: `[blocks, 2, kv_heads, block_tokens, head_dim]`, with these rows' keys and
    /// values in it.
    pub pages: Address,
    /// `[any, q_width]`, written for the sequences' rows.
    pub out: Address,
    /// Rows of each sequence.
    pub rows: &'a [usize],
    /// `i32 [sequences]`: the first row of each.
    pub first_rows: Address,
    /// `i32 [sequences]`: as `rows`.
    pub lengths: Address,
    /// `i32 [sequences]`: tokens of each context, these rows included.
    pub contexts: Address,
    /// `i32 [sequences, table_stride]`: blocks.
    pub tables: Address,
    /// Entries from one table to the next.
    pub table_stride: usize,
    /// How far back a row sees, itself included; at least 1.
    pub window: Option<u32>,
    /// Of the scores.
    pub scale: f32,
}

// === impl PortableAttention ===

impl PortableAttention {
    /// Compiles, or finds, the kernel.
    ///
    /// # Errors
    /// As [`Compiler::module`]; [`EngineError::Device`] for a shape that the kernel doesn't do.
    pub(super) fn new(compiler: &Compiler, shape: PortableShape) -> Result<Self, EngineError> {
        shape.validate()?;
        let most = compiler.device().properties().shared_bytes_max as usize;
        if shape.shared_bytes() > most {
            return Err(unsupported("shape", "it needs more shared memory than there is"));
        }
        let defines = Defines::of(CONSTANTS)
            .flag(shape.element.flag())
            .with("HEAD_DIM", shape.heads.head_dim)
            .with("BLOCK_TOKENS", shape.block_tokens);
        let module = compiler.module("attention/portable.cu", &defines)?;
        Ok(Self { shape, kernel: module.kernel("portable_attention")? })
    }

    /// Computes `out[row] = softmax(scale * q[row] K^T) V` over what each row sees, head by head.
    ///
    /// A row's result is the same, bit for bit, however its prompt was cut into steps. The launch
    /// follows from `rows`: it isn't for recorded steps.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn run(&self, stream: &Stream, read: &PrefillRead<'_>) -> Result<(), EngineError> {
        let queries = self.shape.queries();
        let tiles: usize = read.rows.iter().map(|rows| rows.div_ceil(queries)).sum();
        if tiles == 0 {
            return Ok(());
        }
        if tiles > GRID_Y_MAX {
            return Err(unsupported("number of rows", "more than a grid has blocks"));
        }
        let heads = self.shape.heads;
        let launch = Launch {
            grid: [heads.heads as u32, tiles as u32, 1],
            block: THREADS,
            shared_bytes: self.shape.shared_bytes() as u32,
            cluster: 1,
            overlaps: true,
        };
        self.kernel.launch(
            stream,
            launch,
            args![
                read.qkv,
                read.out,
                read.pages,
                read.first_rows,
                read.lengths,
                read.contexts,
                read.tables,
                read.rows.len() as i32,
                heads.heads as i32,
                heads.kv_heads as i32,
                heads.qkv_width() as i32,
                read.table_stride as i32,
                read.window.map_or(0, |window| window.min(i32::MAX as u32) as i32),
                read.scale
            ],
        )
    }
}

// === impl PortableShape ===

impl PortableShape {
    fn validate(&self) -> Result<(), EngineError> {
        validate_heads(self.heads)?;
        let block_tokens = self.block_tokens;
        if block_tokens != 16 && (block_tokens == 0 || !block_tokens.is_multiple_of(TOKENS)) {
            let block = format!("blocks of {block_tokens} tokens");
            return Err(unsupported(&block, "16 or a multiple of 32 is needed"));
        }
        Ok(())
    }

    /// Query tokens of a block; the kernel computes the same.
    fn queries(&self) -> usize {
        if self.heads.head_dim <= 128 { 128 } else { 64 }
    }

    /// What the kernel lays out in shared memory: queries, keys, values, its `Tail`.
    fn shared_bytes(&self) -> usize {
        let head_dim = self.heads.head_dim;
        let is_swizzled = [64, 128, 256].contains(&head_dim);
        let row = if is_swizzled { head_dim * 2 } else { (head_dim.div_ceil(16) * 2 + 1) * 16 };
        let blocks = TOKENS.div_ceil(self.block_tokens);
        let tail = 16 + 32 + (2 * 4 * blocks).next_multiple_of(8);
        (self.queries() + 2 * TOKENS) * row + tail
    }
}

fn unsupported(what: &str, why: &str) -> EngineError {
    EngineError::Device(format!("attention: {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn shape(head_dim: usize, block_tokens: usize) -> PortableShape {
        let heads = HeadShape { heads: 8, kv_heads: 2, head_dim };
        PortableShape { element: ElementType::F16, heads, block_tokens }
    }

    #[rstest]
    #[case(shape(128, 16))]
    #[case(shape(248, 64))]
    #[case(shape(256, 32))]
    fn every_gpu_has_the_shared_memory(#[case] shape: PortableShape) {
        assert!(shape.validate().is_ok());
        assert!(shape.shared_bytes() <= 99 << 10);
    }

    #[rstest]
    #[case(shape(20, 16))]
    #[case(shape(128, 24))]
    #[case(shape(8, 16))]
    fn odd_shapes_are_refused(#[case] shape: PortableShape) {
        assert!(matches!(shape.validate(), Err(EngineError::Device(_))));
    }
}
