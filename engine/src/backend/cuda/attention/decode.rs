//! Attention of single query tokens over their sequences' pages: the twin of `attention/decode.cu`.

use super::validate_heads;
use crate::backend::cuda::compile::{Compiler, Constants, Defines};
use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::{Device, Stream};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::kernel::{Kernel, Launch, args};
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::config::HeadShape;
use crate::error::EngineError;

/// Tokens that a warp takes at a time.
const TILE: usize = 16;

/// Warps of a block beside the reading ones.
const COMBINERS: usize = 4;

/// Tiles in flight of a warp. More measured no faster where two blocks share a multiprocessor.
const STAGES_SHARED: usize = 3;
/// As many where a block has it for itself.
const STAGES_ALONE: usize = 6;

/// What the driver keeps of each block's shared memory.
const RESERVED_BYTES: usize = 1024;

/// Items of one row that fill any GPU: chunks times key/value heads.
const ITEMS: usize = 256;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[("TILE", TILE), ("COMBINERS", COMBINERS)];

/// The kernel for one model, and the memory it combines partial results in. That serves one stream
/// at a time.
#[derive(Debug)]
pub(super) struct DecodeAttention {
    shape: DecodeShape,
    plan: Plan,
    kernel: Kernel,
    workspace: DeviceMemory,
}

/// What of a model the kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DecodeShape {
    /// Of activations and pages: 16 bits.
    pub element: ElementType,
    /// Heads, key/value heads, their size: a multiple of 8 from 16 to 256.
    pub heads: HeadShape,
    /// Tokens of a KV block: a multiple of 16.
    pub block_tokens: usize,
    /// Rows of a launch at most.
    pub rows_max: usize,
}

/// One layer's attention of some rows. Addresses are of device memory.
///
/// `rows`, `contexts`, `tables` and all keys and values but each row's newest are read while the
/// operation before may still run. What writes them must be complete when the step's first kernel
/// starts: a copy or an ordinary launch ahead of it, in the stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecodeRead {
    /// `[any, qkv_width]`: the queries, rotated.
    pub qkv: Address,
    /// The layer's: `[blocks, 2, kv_heads, block_tokens, head_dim]`.
    pub pages: Address,
    /// `[any, q_width]`, written for rows with a context.
    pub out: Address,
    /// How many rows, padding included.
    pub count: usize,
    /// `i32 [count]`: rows of `qkv` and `out`.
    pub rows: Address,
    /// `i32 [count]`: tokens of the context, the row's own included; 0 in padding.
    pub contexts: Address,
    /// `i32 [count, table_stride]`: blocks.
    pub tables: Address,
    /// Entries from one table to the next.
    pub table_stride: usize,
    /// How far back a row sees, itself included; at least 1.
    pub window: Option<u32>,
    /// Of the scores.
    pub scale: f32,
    /// To run on.
    pub multiprocessors: u32,
    /// Whether the operation before may still run while keys and values are read: it may where each
    /// row's newest token is all that was written in this layer.
    pub overlaps: bool,
    /// Whether the operation before is attention of prompts, which goes on beside this one: what both read was there
    /// when that began.
    pub beside: bool,
}

/// How the kernel is compiled and launched. What decides the order of sums (`warps`, `splits_max`)
/// follows from the model and the kind of GPU, never from the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// Reading warps of a block.
    warps: usize,
    /// Tiles in flight of each.
    stages: usize,
    /// Blocks that share a multiprocessor.
    resident: usize,
    /// Chunks of one row and head at most.
    splits_max: usize,
    /// Of a block.
    shared_bytes: usize,
}

/// Query heads as the kernel groups them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slices {
    /// Of each key/value head.
    count: usize,
    /// Query heads in each.
    heads: usize,
}

/// Bytes of the workspace's parts, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Workspace {
    partials_bytes: usize,
    sums_bytes: usize,
    arrivals_bytes: usize,
}

// === impl DecodeAttention ===

impl DecodeAttention {
    /// Compiles, or finds, the kernel, and takes its workspace.
    ///
    /// # Errors
    /// As [`Compiler::module`]; [`EngineError::Device`] for a shape that the kernel doesn't do, or
    /// if memory runs out.
    pub(super) fn new(
        compiler: &Compiler,
        stream: &Stream,
        shape: DecodeShape,
    ) -> Result<Self, EngineError> {
        shape.validate()?;
        let device = compiler.device();
        let plan = Plan::of(&shape, device)
            .ok_or_else(|| unsupported("shape", "it needs more shared memory than there is"))?;
        let module = compiler.module("attention/decode.cu", &plan.defines(&shape))?;
        let kernel = module.kernel("decode_attention")?;
        let workspace = DeviceMemory::new(device, shape.workspace(plan.splits_max).bytes())?;
        // Arrivals are counted from 0 and left at 0.
        stream.fill(workspace.all(), 0)?;
        Ok(Self { shape, plan, kernel, workspace })
    }

    /// Computes `out[row] = softmax(scale * q[row] K^T) V` for each row, head by head.
    ///
    /// May be captured: the launch follows from `count` and the strides alone. A row's result is the
    /// same, bit for bit, whatever the other rows.
    ///
    /// # Errors
    /// [`EngineError::Device`] if there are more rows than planned for, or the launch fails.
    pub(super) fn run(&self, stream: &Stream, read: &DecodeRead) -> Result<(), EngineError> {
        if read.count == 0 {
            return Ok(());
        }
        if read.count > self.shape.rows_max {
            return Err(unsupported("number of rows", "more than were planned for"));
        }
        let launch = Launch {
            grid: [read.multiprocessors, self.plan.resident as u32, 1],
            block: (32 * (self.plan.warps + COMBINERS)) as u32,
            shared_bytes: self.plan.shared_bytes as u32,
            cluster: 1,
            overlaps: read.overlaps,
        };
        let parts = self.shape.workspace(self.plan.splits_max);
        let partials = self.workspace.address();
        let sums = self.workspace.at(parts.partials_bytes);
        let arrivals = self.workspace.at(parts.partials_bytes + parts.sums_bytes);
        let heads = self.shape.heads;
        self.kernel.launch(
            stream,
            launch,
            args![
                read.qkv,
                read.pages,
                read.out,
                read.contexts,
                read.rows,
                read.tables,
                partials,
                sums,
                arrivals,
                read.count as i32,
                heads.kv_heads as i32,
                heads.qkv_width() as i32,
                read.table_stride as i32,
                read.window.map_or(0, |window| window.min(i32::MAX as u32) as i32),
                i32::from(read.beside),
                read.scale
            ],
        )
    }
}

// === impl DecodeShape ===

impl DecodeShape {
    fn validate(&self) -> Result<(), EngineError> {
        validate_heads(self.heads)?;
        if self.block_tokens == 0 || !self.block_tokens.is_multiple_of(TILE) {
            let block = format!("blocks of {} tokens", self.block_tokens);
            return Err(unsupported(&block, "a multiple of 16 is needed"));
        }
        Ok(())
    }

    fn group(&self) -> usize {
        self.heads.heads / self.heads.kv_heads
    }

    /// As many query heads as a warp's registers hold the sums of.
    fn slices(&self) -> Slices {
        let heads_max = if self.heads.head_dim <= 192 { 16 } else { 8 };
        let count = self.group().div_ceil(heads_max);
        Slices { count, heads: self.group().div_ceil(count) }
    }

    fn workspace(&self, splits_max: usize) -> Workspace {
        let Slices { count, heads } = self.slices();
        let slices = self.rows_max * self.heads.kv_heads * count;
        let chunk_heads = slices * splits_max * heads;
        Workspace {
            partials_bytes: chunk_heads * self.heads.head_dim * size_of::<f32>(),
            sums_bytes: chunk_heads * 2 * size_of::<f32>(),
            arrivals_bytes: slices * size_of::<i32>(),
        }
    }
}

// === impl Workspace ===

impl Workspace {
    fn bytes(&self) -> usize {
        self.partials_bytes + self.sums_bytes + self.arrivals_bytes
    }
}

// === impl Plan ===

impl Plan {
    fn of(shape: &DecodeShape, device: &Device) -> Option<Self> {
        Self::within(shape, device.properties().shared_bytes_max as usize)
    }

    /// - `shared_bytes_max`: what one block may ask for.
    fn within(shape: &DecodeShape, shared_bytes_max: usize) -> Option<Self> {
        // Two blocks of 8 warps have 128 registers a thread.
        let fits_twice = shape.heads.head_dim <= 128 && shape.slices().heads <= 8;
        let half = (shared_bytes_max - RESERVED_BYTES) / 2;
        let shared = [STAGES_SHARED, 2].map(|stages| (4, stages, 2, half));
        let alone = (2..=STAGES_ALONE).rev().map(|stages| (4, stages, 1, shared_bytes_max));
        let small = [3, 2].map(|stages| (2, stages, 1, shared_bytes_max));
        shared
            .into_iter()
            .filter(|_| fits_twice)
            .chain(alone)
            .chain(small)
            .map(|(warps, stages, resident, most)| {
                (Self::new(shape, warps, stages, resident), most)
            })
            .find(|(plan, most)| plan.shared_bytes <= *most)
            .map(|(plan, _)| plan)
    }

    fn new(shape: &DecodeShape, warps: usize, stages: usize, resident: usize) -> Self {
        let slices = shape.heads.kv_heads * shape.slices().count;
        let splits_max = (ITEMS / slices).next_power_of_two().clamp(32, 128);
        let shared_bytes = shared_bytes(shape, warps, stages);
        Self { warps, stages, resident, splits_max, shared_bytes }
    }

    fn defines(&self, shape: &DecodeShape) -> Defines {
        Defines::of(CONSTANTS)
            .flag(shape.element.flag())
            .with("HEAD_DIM", shape.heads.head_dim)
            .with("GROUP", shape.group())
            .with("BLOCK_TOKENS", shape.block_tokens)
            .with("WARPS", self.warps)
            .with("STAGES", self.stages)
            .with("RESIDENT", self.resident)
            .with("SPLITS_MAX", self.splits_max)
    }
}

/// What the kernel lays out in shared memory: the warps' rings, its `Tail`, the contexts.
fn shared_bytes(shape: &DecodeShape, warps: usize, stages: usize) -> usize {
    let head_dim = shape.heads.head_dim;
    let heads = shape.slices().heads;
    let steps = head_dim.div_ceil(16);
    let row = if [64, 128, 256].contains(&head_dim) { head_dim * 2 } else { (steps * 2 + 1) * 16 };
    let ring = warps * stages * 2 * TILE * row;
    let states = warps * heads * ((steps * 16).next_multiple_of(32) + 4);
    let maxima_and_sums = 2 * warps * heads.next_multiple_of(8);
    let division = (warps + COMBINERS) + 2 * 3 + 1;
    let words = states + maxima_and_sums + division + shape.rows_max;
    ring + words * 4
}

fn unsupported(what: &str, why: &str) -> EngineError {
    EngineError::Device(format!("decode attention: {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HOPPER: usize = 227 << 10;
    const AMPERE: usize = 163 << 10;
    const ADA: usize = 99 << 10;

    fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> DecodeShape {
        DecodeShape {
            element: ElementType::Bf16,
            heads: HeadShape { heads, kv_heads, head_dim },
            block_tokens: 16,
            rows_max: 512,
        }
    }

    #[rstest]
    #[case::llama(shape(32, 8, 128), HOPPER, (4, 3, 2, 32))]
    #[case::llama_ampere(shape(32, 8, 128), AMPERE, (4, 2, 2, 32))]
    #[case::llama_ada(shape(32, 8, 128), ADA, (4, 2, 1, 32))]
    #[case::few_kv_heads(shape(32, 2, 128), HOPPER, (4, 5, 1, 128))]
    #[case::wide_heads(shape(16, 16, 256), HOPPER, (4, 3, 1, 32))]
    #[case::wide_heads_ada(shape(16, 16, 256), ADA, (2, 2, 1, 32))]
    fn a_plan_fits(
        #[case] shape: DecodeShape,
        #[case] shared_bytes_max: usize,
        #[case] expected: (usize, usize, usize, usize),
    ) {
        let plan = Plan::within(&shape, shared_bytes_max).expect("a plan");
        assert_eq!((plan.warps, plan.stages, plan.resident, plan.splits_max), expected);
        assert!(plan.resident * (plan.shared_bytes + RESERVED_BYTES) <= shared_bytes_max + 1024);
    }

    #[rstest]
    #[case(shape(71, 1, 64), Slices { count: 5, heads: 15 })]
    #[case(shape(16, 1, 256), Slices { count: 2, heads: 8 })]
    #[case(shape(32, 8, 128), Slices { count: 1, heads: 4 })]
    fn wide_groups_are_sliced(#[case] shape: DecodeShape, #[case] expected: Slices) {
        assert_eq!(shape.slices(), expected);
    }

    #[rstest]
    #[case(shape(32, 8, 20))]
    #[case(shape(32, 8, 264))]
    #[case(shape(32, 7, 128))]
    fn odd_shapes_are_refused(#[case] shape: DecodeShape) {
        assert!(matches!(shape.validate(), Err(EngineError::Device(_))));
    }
}
