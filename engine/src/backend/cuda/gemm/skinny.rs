//! Products of few rows with weights, where reading the weights is the floor: the twin of
//! `gemm/skinny.cu`.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Epilogue;
use crate::backend::cuda::compile::{Compiler, Constants, Defines};
use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::{Properties, Stream};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::kernel::{Kernel, Launch, args};
use crate::backend::cuda::driver::tensor_map::TensorMap;
use crate::error::EngineError;

/// The instructions used (wgmma) are of this generation alone.
const CAPABILITY: (u32, u32) = (9, 0);

/// Bytes of a row of a piece of weights or activations: 64 inputs, a row of the swizzle.
const PIECE_BYTES: usize = 128;

/// Tokens of one group of multiplying warps.
const GROUP_TOKENS: usize = 64;

/// Stages of a ring that the barriers have room for.
const STAGES_MAX: usize = 32;

/// Barriers before the rings.
const BARRIER_BYTES: usize = 1024;

/// Rows of weights that a block may own: multiples of 16. More than 128 measured no faster.
const BLOCK_ROWS_MAX: usize = 128;

/// Shared memory of a block that has a multiprocessor for itself.
const ALONE_BYTES: usize = 200 << 10;
/// As much where two share one. Where there are more blocks than multiprocessors, that measured 2 %
/// faster with one token and 8 % with 64 (Llama's gates on an H100).
const SHARED_BYTES: usize = 113 << 10;

/// Rows up to which the kernel beat cublasLt at every shape of Llama 3.1 8B on an H100. At 128 it lost
/// by 5 to 17 %, because activations become most of what the second-level cache has to give ...
const ROWS_MAX: usize = 64;
/// ... except for logits, where a block has many rows of weights for each read of the activations.
const LOGIT_ROWS_MAX: usize = 128;

/// Weights on their way to a block: with more neither an H100 nor an H200 got faster, and the more there are, the longer other
/// reads wait behind them.
const AHEAD_BYTES: usize = 48 << 10;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[
    ("PIECE_BYTES", PIECE_BYTES),
    ("GROUP_TOKENS", GROUP_TOKENS),
    ("STAGES_MAX", STAGES_MAX),
    ("RING_OFFSET", BARRIER_BYTES),
];

/// The kernels for one model's products.
#[derive(Debug)]
pub(crate) struct SkinnyMatmul {
    element: ElementType,
    prepared: HashMap<SkinnyShape, Prepared>,
    /// Of weights, by address. What a map says follows from its key, so none is ever out of date.
    maps: Mutex<HashMap<(Address, SkinnyShape), TensorMap>>,
}

/// What a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SkinnyShape {
    /// Columns of the result; rows of the weight, or half of them where it is gated.
    pub outputs: usize,
    /// Columns of the weight: a multiple of 8.
    pub inputs: usize,
    /// What is written.
    pub kind: Epilogue,
}

/// One product: `out[rows, outputs] = x[rows, inputs] * weight^T (+ bias)`. All is contiguous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SkinnyProduct {
    /// `[rows, inputs]` elements, aligned to 16 bytes.
    pub x: Address,
    /// `[outputs, inputs]` elements, twice as many rows where it is gated, aligned to 16 bytes. Read
    /// while the operation before may still run, as `bias` is.
    pub weight: Address,
    /// `[outputs]` elements, added to every row. None where it is gated.
    pub bias: Option<Address>,
    /// `[rows, outputs]`, aligned to 8 bytes.
    pub out: Address,
    /// Rows of `x` and `out`.
    pub rows: usize,
    /// The weight's shape, and what is written.
    pub shape: SkinnyShape,
}

#[derive(Debug)]
struct Prepared {
    plan: Plan,
    /// In the order of [`Bucket::ALL`], as far as rows are taken.
    kernels: Vec<Kernel>,
}

/// How the weights of a shape are spread over blocks. It follows from the shape and the device, never
/// from the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// Rows of the weight that a block owns, `ROWS`.
    block_rows: usize,
    /// Blocks.
    tiles: usize,
    /// Pieces of a stage of weights, `W_PIECES`.
    pieces: usize,
    /// Whether two blocks share a multiprocessor, up to [`ROWS_MAX`] rows.
    shares: bool,
}

/// Numbers of tokens that one compilation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    /// Up to how many.
    rows_max: usize,
    by: Instructions,
    /// Pieces of a stage of activations at most, `X_PIECES`: together up to 16 KiB.
    pieces_max: usize,
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// 8 tokens at a time: up to 32 tokens, wgmma would mostly compute what is dropped.
    Mma,
    /// 64 tokens at a time, by each of so many groups of warps, `WARPGROUPS`.
    Wgmma { groups: usize },
}

/// What a launch is given of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rings {
    /// Tokens of a box of activations.
    x_rows: usize,
    x_stages: usize,
    w_stages: usize,
    /// Stages of weights on their way at a time.
    ahead: usize,
    bytes: usize,
}

// === impl SkinnyMatmul ===

impl SkinnyMatmul {
    /// Compiles, or finds, the kernels for these shapes. Shapes that the kernel doesn't do, or not
    /// well, are passed over, all of them on devices that don't have the instructions.
    ///
    /// # Errors
    /// As [`Compiler::module`].
    pub(crate) fn new(
        compiler: &Compiler,
        element: ElementType,
        shapes: &[SkinnyShape],
    ) -> Result<Self, EngineError> {
        let properties = compiler.device().properties();
        let plans: Vec<_> = shapes
            .iter()
            .filter_map(|shape| Some((*shape, Plan::of(shape, properties)?)))
            .collect();
        let units: Vec<_> = plans
            .iter()
            .flat_map(|(shape, plan)| {
                shape.buckets().map(|bucket| plan.defines(shape, bucket, element))
            })
            .map(|defines| ("gemm/skinny.cu", defines))
            .collect();
        let mut modules = compiler.modules(&units)?.into_iter();
        let mut prepared = HashMap::new();
        for (shape, plan) in plans {
            let modules = modules.by_ref().take(shape.buckets().count());
            let kernels = modules
                .map(|module| module.kernel("skinny_matmul"))
                .collect::<Result<_, EngineError>>()?;
            prepared.insert(shape, Prepared { plan, kernels });
        }
        Ok(Self { element, prepared, maps: Mutex::default() })
    }

    /// Whether the kernel is there for this product and measured faster than the library.
    #[must_use]
    pub(crate) fn takes(&self, rows: usize, shape: &SkinnyShape) -> bool {
        (1..=shape.rows_max()).contains(&rows) && self.prepared.contains_key(shape)
    }

    /// Submits a product that [`SkinnyMatmul::takes`]. May be called in a capture.
    ///
    /// The kernel may start before its predecessor has ended, and reads the weight and the bias at
    /// once: they must have been written before the predecessor started.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the product isn't one it takes, or the launch fails.
    pub(crate) fn run(&self, stream: &Stream, product: &SkinnyProduct) -> Result<(), EngineError> {
        let shape = &product.shape;
        let prepared =
            self.prepared.get(shape).filter(|_| product.is_valid()).ok_or_else(|| {
                EngineError::Device(format!("not a product of few rows: {product:?}"))
            })?;
        let (bucket, kernel) = Bucket::ALL
            .iter()
            .zip(&prepared.kernels)
            .find(|(bucket, _)| product.rows <= bucket.rows_max)
            .ok_or_else(|| EngineError::Device(format!("too many rows: {product:?}")))?;
        let plan = &prepared.plan;
        let rings = Rings::of(plan, bucket, product.rows);
        let weights = self.weights(plan, product)?;
        let x = (product.x, product.rows, shape.inputs);
        let x = TensorMap::of_rows(x, self.element, rings.x_rows)?;
        let launch = Launch {
            grid: [plan.tiles as u32, 1, 1],
            block: bucket.threads(),
            shared_bytes: rings.bytes as u32,
            cluster: 1,
            overlaps: true,
        };
        kernel.launch(
            stream,
            launch,
            args![
                weights,
                x,
                product.out,
                product.bias.unwrap_or(Address::NONE),
                product.rows as i32,
                shape.outputs as i32,
                shape.inputs as i32,
                rings.x_rows as i32,
                rings.w_stages as i32,
                rings.x_stages as i32,
                rings.ahead as i32,
            ],
        )
    }

    fn weights(&self, plan: &Plan, product: &SkinnyProduct) -> Result<TensorMap, EngineError> {
        let (shape, key) = (&product.shape, (product.weight, product.shape));
        let mut maps = self.maps.lock();
        if let Some(map) = maps.get(&key) {
            return Ok(*map);
        }
        let matrix = (product.weight, shape.weight_rows(), shape.inputs);
        let map = TensorMap::of_rows(matrix, self.element, plan.block_rows / shape.parts())?;
        maps.insert(key, map);
        Ok(map)
    }
}

// === impl SkinnyShape ===

impl SkinnyShape {
    /// Rows of the weight that make one output.
    fn parts(&self) -> usize {
        if self.kind == Epilogue::Gated { 2 } else { 1 }
    }

    fn weight_rows(&self) -> usize {
        self.outputs * self.parts()
    }

    /// Rows of activations up to which the kernel is used.
    fn rows_max(&self) -> usize {
        if self.kind == Epilogue::F32 { LOGIT_ROWS_MAX } else { ROWS_MAX }
    }

    fn buckets(&self) -> impl Iterator<Item = &'static Bucket> + use<> {
        let most = self.rows_max();
        Bucket::ALL.iter().filter(move |bucket| bucket.rows_max <= most)
    }
}

// === impl SkinnyProduct ===

impl SkinnyProduct {
    fn is_valid(&self) -> bool {
        self.rows > 0
            && self.out.alignment() >= 8
            && !(self.shape.kind == Epilogue::Gated && self.bias.is_some())
    }
}

// === impl Plan ===

impl Plan {
    /// None where the kernel can't do the shape, or would leave too many multiprocessors idle.
    fn of(shape: &SkinnyShape, properties: &Properties) -> Option<Self> {
        let fits = shape.outputs > 0
            && shape.inputs > 0
            && shape.inputs.is_multiple_of(8)
            && shape.weight_rows().max(shape.inputs) <= i32::MAX as usize
            && properties.capability == CAPABILITY
            && properties.shared_bytes_max as usize >= ALONE_BYTES;
        if !fits {
            return None;
        }
        let multiprocessors = properties.multiprocessors as usize;
        let tiles = |rows: usize| shape.outputs.div_ceil(rows / shape.parts());
        // The time is that of the multiprocessor with the most rows. Of those within 5 % of the best,
        // the fewest blocks: the memory is as busy while the last of them run.
        let busiest = |rows: usize| tiles(rows).div_ceil(multiprocessors) * rows;
        let choices = || (1..=BLOCK_ROWS_MAX / 16).map(|units| units * 16);
        let best = choices().map(busiest).min()?;
        let block_rows = choices().rev().find(|&rows| busiest(rows) * 20 <= best * 21)?;
        let tiles = tiles(block_rows);
        // With fewer, weights don't come at the memory's full rate: the library splits sums instead.
        if tiles * 4 < multiprocessors * 3 {
            return None;
        }
        let pieces = match block_rows {
            ..=48 => 4,
            49..=80 => 2,
            _ => 1,
        };
        let shares = tiles > multiprocessors && pieces == 1;
        Some(Self { block_rows, tiles, pieces, shares })
    }

    fn defines(&self, shape: &SkinnyShape, bucket: &Bucket, element: ElementType) -> Defines {
        let defines = Defines::of(CONSTANTS)
            .with("ROWS", self.block_rows)
            .with("W_PIECES", self.pieces)
            .with("X_PIECES", bucket.pieces(self))
            .flag(element.flag());
        let defines = match bucket.by {
            Instructions::Mma => defines.with("TOKENS", bucket.rows_max),
            Instructions::Wgmma { groups } => defines.with("WARPGROUPS", groups),
        };
        match shape.kind {
            Epilogue::Plain => defines,
            Epilogue::F32 => defines.flag("OUT_F32"),
            Epilogue::Gated => defines.flag("GATED"),
        }
    }
}

// === impl Bucket ===

impl Bucket {
    const ALL: [Self; 4] = [
        Self { rows_max: 8, by: Instructions::Mma, pieces_max: 4 },
        Self { rows_max: 32, by: Instructions::Mma, pieces_max: 4 },
        Self { rows_max: 64, by: Instructions::Wgmma { groups: 1 }, pieces_max: 2 },
        Self { rows_max: 128, by: Instructions::Wgmma { groups: 2 }, pieces_max: 1 },
    ];

    fn pieces(&self, plan: &Plan) -> usize {
        self.pieces_max.min(plan.pieces)
    }

    /// Multiplying warps, then one that loads weights and one that loads activations.
    fn threads(&self) -> u32 {
        self.groups() as u32 * 128 + 64
    }

    fn groups(&self) -> usize {
        match self.by {
            Instructions::Mma => 1,
            Instructions::Wgmma { groups } => groups,
        }
    }

    /// What has to fit where weights were, or is read past a short tile of activations: in bytes.
    fn beside(&self, plan: &Plan) -> usize {
        match self.by {
            Instructions::Mma => 2 * self.rows_max * (plan.block_rows + 4) * size_of::<f32>(),
            Instructions::Wgmma { groups } => groups * GROUP_TOKENS * PIECE_BYTES,
        }
    }
}

// === impl Rings ===

impl Rings {
    fn of(plan: &Plan, bucket: &Bucket, rows: usize) -> Self {
        let x_rows = rows.next_multiple_of(8);
        let pieces = bucket.pieces(plan);
        let x_stage = pieces * x_rows * PIECE_BYTES;
        let w_stage = plan.pieces * plan.block_rows * PIECE_BYTES;
        let shares = plan.shares && rows <= ROWS_MAX;
        let room = if shares { SHARED_BYTES } else { ALONE_BYTES } - BARRIER_BYTES;
        // Activations come from the second-level cache, behind weights in its queues: the more of
        // them, the more have to be on their way.
        let x_ring = match x_rows {
            _ if shares => 24 << 10,
            0..=8 => 32 << 10,
            9..=16 => 48 << 10,
            17..=32 => 64 << 10,
            _ => 96 << 10,
        };
        // One stage of weights in use and one to come, at least.
        let x_stages_min = 2 * plan.pieces / pieces;
        let x_stages = (x_ring / x_stage).clamp(x_stages_min, STAGES_MAX);
        let w_stages = ((room - x_stages * x_stage) / w_stage).clamp(2, STAGES_MAX);
        let w_ring = (w_stages * w_stage).max(bucket.beside(plan));
        Self {
            x_rows,
            x_stages,
            w_stages,
            ahead: (AHEAD_BYTES / w_stage).clamp(1, w_stages),
            bytes: BARRIER_BYTES + x_stages * x_stage + w_ring,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h100() -> Properties {
        Properties {
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            capability: (9, 0),
            multiprocessors: 132,
            shared_bytes_max: 227 << 10,
            l2_bytes: 50 << 20,
            memory_bytes: 80 << 30,
        }
    }

    fn shape(outputs: usize, inputs: usize, kind: Epilogue) -> SkinnyShape {
        SkinnyShape { outputs, inputs, kind }
    }

    /// `(block_rows, tiles, pieces, shares)`.
    fn plan(outputs: usize, inputs: usize, kind: Epilogue) -> Option<(usize, usize, usize, bool)> {
        let plan = Plan::of(&shape(outputs, inputs, kind), &h100())?;
        Some((plan.block_rows, plan.tiles, plan.pieces, plan.shares))
    }

    #[test]
    fn llama_is_planned_as_it_was_measured() {
        use Epilogue::{F32, Gated, Plain};
        assert_eq!(plan(6144, 4096, Plain), Some((48, 128, 4, false)));
        assert_eq!(plan(4096, 4096, Plain), Some((32, 128, 4, false)));
        assert_eq!(plan(14336, 4096, Gated), Some((112, 256, 1, true)));
        assert_eq!(plan(4096, 14336, Plain), Some((32, 128, 4, false)));
        assert_eq!(plan(128_256, 4096, F32), Some((128, 1002, 1, true)));
    }

    #[test]
    fn leaves_what_it_cannot_do_to_the_library() {
        assert_eq!(plan(4096, 4097, Epilogue::Plain), None, "rows aren't aligned");
        assert_eq!(plan(256, 4096, Epilogue::Plain), None, "16 blocks");
        let blackwell = Properties { capability: (10, 0), ..h100() };
        let shape = shape(4096, 4096, Epilogue::Plain);
        assert_eq!(Plan::of(&shape, &blackwell), None);
    }

    #[test]
    fn rings_fit_for_every_plan_and_number_of_rows() {
        for block_rows in (16..=BLOCK_ROWS_MAX).step_by(16) {
            let pieces = if block_rows <= 48 { 4 } else { 2 - usize::from(block_rows > 80) };
            for shares in [false, pieces == 1] {
                let plan = Plan { block_rows, tiles: 1, pieces, shares };
                for rows in 1..=128 {
                    let bucket = Bucket::ALL.iter().find(|it| rows <= it.rows_max).unwrap();
                    let rings = Rings::of(&plan, bucket, rows);
                    let shares = shares && rows <= ROWS_MAX;
                    let most = if shares { SHARED_BYTES } else { ALONE_BYTES };
                    assert!(rings.bytes <= most, "{plan:?}, {rows} rows: {rings:?}");
                    assert!((1..=rings.w_stages).contains(&rings.ahead), "{rings:?}");
                    assert!(rings.x_rows >= rows && rings.x_rows <= bucket.groups() * GROUP_TOKENS);
                }
            }
        }
    }
}
