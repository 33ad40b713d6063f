//! Products of many rows with weights, where a kernel does better than the library: the twin of
//! `gemm/tiled.cu`.
//!
//! That is so where the result is activated: the library would write gates and ups for another kernel
//! to read. And where sums are long and tiles few.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::backend::cuda::compile::{Compiler, Constants, Defines};
use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::{Properties, Stream};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::kernel::{Kernel, Launch, args};
use crate::backend::cuda::driver::tensor_map::TensorMap;
use crate::error::EngineError;

/// The instructions used (wgmma) are of this generation alone.
const CAPABILITY: (u32, u32) = (9, 0);

/// Tokens of a tile.
const TILE_TOKENS: usize = 128;

/// Inputs of a piece, and the bytes of a row of it.
const PIECE: usize = 64;
const PIECE_BYTES: usize = 128;

/// Threads of a block: a warpgroup that loads, two that multiply.
const THREADS: u32 = 384;

/// Barriers before the ring.
const BARRIER_BYTES: usize = 1024;

/// Stages of the ring that the barriers have room for, and more than were tried.
const STAGES_MAX: usize = 9;

/// Rows of tiles that are computed together: their activations stay in the second-level cache.
const GROUP_TOKENS: usize = 2048;

/// Rows from which the kernel for few rows leaves off.
const ROWS_MIN: usize = 65;

/// Where a plain product is taken from the library: rows up to one tile's, and sums of at least as
/// many inputs. At 128 rows of 4096 x 14336 it takes 46 us where cublasLt takes 54; at 256 rows, and with
/// 4096 inputs at either, they are equal (H100).
const PLAIN_ROWS_MAX: usize = TILE_TOKENS;
const PLAIN_INPUTS_MIN: usize = 8192;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[
    ("TILE_TOKENS", TILE_TOKENS),
    ("PIECE", PIECE),
    ("PIECE_BYTES", PIECE_BYTES),
    ("THREADS", THREADS as usize),
    ("RING_OFFSET", BARRIER_BYTES),
    ("STAGES_MAX", STAGES_MAX),
];

/// The kernels for one model's products.
#[derive(Debug)]
pub(crate) struct TiledMatmul {
    element: ElementType,
    prepared: HashMap<TiledShape, Vec<Prepared>>,
    /// Of weights, by address. What a map says follows from its key, so none is ever out of date.
    maps: Mutex<HashMap<(Address, TiledShape, Tile), TensorMap>>,
}

/// What a product writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TiledKind {
    /// The product.
    Plain,
    /// `silu(gate) * up`, where the weight is `[2 * outputs, inputs]`, gates first.
    Gated,
}

/// What kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TiledShape {
    /// Columns of the result; rows of the weight, or half of them where it is gated. A multiple of 8.
    pub outputs: usize,
    /// Columns of the weight: a multiple of 8.
    pub inputs: usize,
    /// What is written.
    pub kind: TiledKind,
}

/// One product: `out[rows, outputs] = x[rows, inputs] * weight^T (+ bias)`. All is contiguous, and of
/// 16-bit elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TiledProduct {
    /// `[rows, inputs]`, aligned to 16 bytes.
    pub x: Address,
    /// `[outputs, inputs]`, twice as many rows where it is gated, aligned to 16 bytes. Read while the
    /// operation before may still run.
    pub weight: Address,
    /// `[outputs]`, added to every row. None where it is gated.
    pub bias: Option<Address>,
    /// `[rows, outputs]`, aligned to 16 bytes.
    pub out: Address,
    /// Rows of `x` and `out`.
    pub rows: usize,
    /// The weight's shape, and what is written.
    pub shape: TiledShape,
}

#[derive(Debug)]
struct Prepared {
    tile: Tile,
    stages: usize,
    shared_bytes: usize,
    kernel: Kernel,
}

/// A tile of the result, and who computes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tile {
    /// Rows of the weight, `ROWS`.
    rows: usize,
    pairs: Pairs,
}

/// What two blocks do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pairs {
    /// Each block is alone.
    None,
    /// Neighbours along the tokens bring the weights for each other.
    SharedWeights,
    /// Each takes half of the inputs of one tile.
    SplitSum,
}

// === impl TiledMatmul ===

impl TiledMatmul {
    /// Compiles, or finds, the kernels for these shapes. Shapes that they don't do, or not better than
    /// the library, are passed over, all of them on devices that don't have the instructions.
    ///
    /// - `rows_max`: of a product.
    ///
    /// # Errors
    /// As [`Compiler::module`].
    pub(crate) fn new(
        compiler: &Compiler,
        element: ElementType,
        shapes: &[TiledShape],
        rows_max: usize,
    ) -> Result<Self, EngineError> {
        let properties = compiler.device().properties();
        let shared_bytes_max = properties.shared_bytes_max as usize;
        let wanted: Vec<_> = shapes
            .iter()
            .flat_map(|shape| {
                let tiles = shape.tiles(rows_max, properties);
                tiles.into_iter().map(|tile| (*shape, tile))
            })
            .collect();
        let units: Vec<_> = wanted
            .iter()
            .map(|(shape, tile)| {
                let stages = tile.stages(shape.kind, shared_bytes_max);
                ("gemm/tiled.cu", tile.defines(shape.kind, stages, element))
            })
            .collect();
        let mut prepared: HashMap<_, Vec<_>> = HashMap::new();
        for ((shape, tile), module) in wanted.into_iter().zip(compiler.modules(&units)?) {
            let stages = tile.stages(shape.kind, shared_bytes_max);
            let shared_bytes = tile.shared_bytes(shape.kind, stages);
            let kernel = module.kernel("tiled_matmul")?;
            let entry = Prepared { tile, stages, shared_bytes, kernel };
            prepared.entry(shape).or_default().push(entry);
        }
        Ok(Self { element, prepared, maps: Mutex::default() })
    }

    /// Whether there is a kernel for this product that does better than the library.
    #[must_use]
    pub(crate) fn takes(&self, rows: usize, shape: &TiledShape) -> bool {
        shape.takes(rows) && self.prepared.contains_key(shape)
    }

    /// Submits a product that [`TiledMatmul::takes`]. May be called in a capture.
    ///
    /// The kernel may start before its predecessor has ended, and reads the weight at once: it must
    /// have been written before the predecessor started.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the product isn't one it takes, or the launch fails.
    pub(crate) fn run(&self, stream: &Stream, product: &TiledProduct) -> Result<(), EngineError> {
        let shape = &product.shape;
        let multiprocessors = stream.multiprocessors() as usize;
        let chosen = self
            .prepared
            .get(shape)
            .filter(|_| product.is_valid())
            .and_then(|all| {
                all.iter().min_by_key(|it| it.tile.cost(shape, product.rows, multiprocessors))
            })
            .ok_or_else(|| {
                EngineError::Device(format!("not a product of many rows: {product:?}"))
            })?;
        let tile = chosen.tile;
        let weights = self.weights(tile, product)?;
        let x = (product.x, product.rows, shape.inputs);
        let x = TensorMap::of_rows(x, self.element, TILE_TOKENS)?;
        let blocks = tile.blocks(shape, product.rows, multiprocessors);
        tracing::trace!(?product, ?tile, stages = chosen.stages, blocks, "a product of many rows");
        let launch = Launch {
            grid: [blocks as u32, 1, 1],
            block: THREADS,
            shared_bytes: chosen.shared_bytes as u32,
            cluster: tile.pairs.blocks() as u32,
            overlaps: true,
        };
        chosen.kernel.launch(
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
                (GROUP_TOKENS / tile.tokens()) as i32,
            ],
        )
    }

    fn weights(&self, tile: Tile, product: &TiledProduct) -> Result<TensorMap, EngineError> {
        let (shape, key) = (&product.shape, (product.weight, product.shape, tile));
        let mut maps = self.maps.lock();
        if let Some(map) = maps.get(&key) {
            return Ok(*map);
        }
        let matrix = (product.weight, shape.outputs * shape.kind.parts(), shape.inputs);
        let map = TensorMap::of_rows(matrix, self.element, tile.rows / 2)?;
        maps.insert(key, map);
        Ok(map)
    }
}

// === impl TiledKind ===

impl TiledKind {
    /// Rows of the weight that make one output.
    fn parts(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Gated => 2,
        }
    }
}

// === impl TiledShape ===

impl TiledShape {
    fn takes(&self, rows: usize) -> bool {
        match self.kind {
            TiledKind::Gated => rows >= ROWS_MIN,
            TiledKind::Plain => {
                (ROWS_MIN..=PLAIN_ROWS_MAX).contains(&rows) && self.inputs >= PLAIN_INPUTS_MIN
            }
        }
    }

    /// The tiles that are best for some number of rows, in the order of [`Tile::of`]; none where the
    /// kernel can't do the shape.
    fn tiles(&self, rows_max: usize, properties: &Properties) -> Vec<Tile> {
        let largest = i32::MAX as usize;
        let fits = self.outputs > 0
            && self.inputs > 0
            && self.outputs.is_multiple_of(8)
            && self.inputs.is_multiple_of(8)
            && (self.outputs * self.kind.parts()).max(self.inputs) <= largest
            && properties.capability == CAPABILITY;
        if !fits {
            return Vec::new();
        }
        let multiprocessors = properties.multiprocessors as usize;
        let mut best = Vec::new();
        for rows in (TILE_TOKENS..=rows_max.next_multiple_of(TILE_TOKENS)).step_by(TILE_TOKENS) {
            let candidates = Tile::of(self.kind).iter().filter(|_| self.takes(rows));
            let tile = candidates.min_by_key(|tile| tile.cost(self, rows, multiprocessors));
            // A kind of tile that leaves many multiprocessors idle is no match for the library.
            let tile = tile.filter(|tile| {
                self.kind == TiledKind::Gated
                    || tile.count(self, rows) * tile.pairs.blocks() * 4 >= multiprocessors * 3
            });
            best.extend(tile);
        }
        Tile::of(self.kind).iter().copied().filter(|tile| best.contains(tile)).collect()
    }
}

// === impl TiledProduct ===

impl TiledProduct {
    fn is_valid(&self) -> bool {
        self.rows > 0
            && self.rows <= i32::MAX as usize
            && [self.x, self.weight, self.out].iter().all(|address| address.alignment() == 16)
            && !(self.shape.kind == TiledKind::Gated && self.bias.is_some())
    }
}

// === impl Tile ===

impl Tile {
    /// Those that were measured, the better first where they are equal by [`Tile::cost`].
    fn of(kind: TiledKind) -> &'static [Self] {
        const fn tile(rows: usize, pairs: Pairs) -> Tile {
            Tile { rows, pairs }
        }
        match kind {
            TiledKind::Gated => {
                const {
                    &[
                        tile(256, Pairs::SharedWeights),
                        tile(224, Pairs::SharedWeights),
                        tile(224, Pairs::None),
                        tile(128, Pairs::None),
                        tile(64, Pairs::None),
                    ]
                }
            }
            TiledKind::Plain => const { &[tile(64, Pairs::SplitSum)] },
        }
    }

    /// Tokens of the blocks that work together.
    fn tokens(self) -> usize {
        TILE_TOKENS * if self.pairs == Pairs::SharedWeights { 2 } else { 1 }
    }

    /// Columns of the result.
    fn columns(self, kind: TiledKind) -> usize {
        self.rows / kind.parts()
    }

    /// Tiles of a product, or pairs of them that share weights.
    fn count(self, shape: &TiledShape, rows: usize) -> usize {
        rows.div_ceil(self.tokens()) * shape.outputs.div_ceil(self.columns(shape.kind))
    }

    /// The time that a product takes, in cycles for each piece of the inputs: a tile's, as many times as
    /// tiles follow each other on a multiprocessor.
    fn cost(self, shape: &TiledShape, rows: usize, multiprocessors: usize) -> usize {
        /// What a tile takes beside, to begin and to be written, spread over the pieces.
        const ASIDE: usize = 40;
        let slots = (multiprocessors / self.pairs.blocks()).max(1);
        // The tensor cores do 16 K products a cycle, and 64 bytes a cycle come in.
        let multiplying = TILE_TOKENS * self.rows * PIECE / 2048;
        let loading = (TILE_TOKENS + self.rows) * PIECE_BYTES / 64;
        let turns = self.count(shape, rows).div_ceil(slots);
        let pieces = if self.pairs == Pairs::SplitSum { 2 } else { 1 };
        turns * (multiplying.max(loading) + ASIDE) / pieces
    }

    /// Of a launch: persistent ones, or where a sum is split two for each tile.
    fn blocks(self, shape: &TiledShape, rows: usize, multiprocessors: usize) -> usize {
        let (tiles, blocks) = (self.count(shape, rows), self.pairs.blocks());
        let slots = (multiprocessors / blocks).max(1);
        blocks * if self.pairs == Pairs::SplitSum { tiles } else { tiles.min(slots) }
    }

    /// As many as there is room for.
    fn stages(self, kind: TiledKind, shared_bytes_max: usize) -> usize {
        let room = shared_bytes_max.saturating_sub(self.shared_bytes(kind, 0));
        (room / self.stage_bytes()).min(STAGES_MAX)
    }

    fn stage_bytes(self) -> usize {
        (TILE_TOKENS + self.rows) * PIECE_BYTES
    }

    /// What the kernel lays out: barriers, the ring, the sums that a pair exchanges, and what each
    /// warp puts in order before it writes it.
    fn shared_bytes(self, kind: TiledKind, stages: usize) -> usize {
        let columns = self.columns(kind);
        let staged = if columns > 128 { columns / 2 } else { columns };
        let (exchanged, writers) = match self.pairs {
            Pairs::SplitSum => (TILE_TOKENS / 2 * self.rows * size_of::<f32>(), 4),
            Pairs::None | Pairs::SharedWeights => (0, 8),
        };
        let written = writers * 16 * (staged * 2 + 16);
        BARRIER_BYTES + stages * self.stage_bytes() + exchanged + written
    }

    fn defines(self, kind: TiledKind, stages: usize, element: ElementType) -> Defines {
        let defines = Defines::of(CONSTANTS)
            .with("ROWS", self.rows)
            .with("STAGES", stages)
            .flag(element.flag());
        let defines = match self.pairs {
            Pairs::None => defines,
            Pairs::SharedWeights => defines.flag("SHARED_WEIGHTS"),
            Pairs::SplitSum => defines.flag("SPLIT_SUM"),
        };
        match kind {
            TiledKind::Plain => defines,
            TiledKind::Gated => defines.flag("GATED"),
        }
    }
}

// === impl Pairs ===

impl Pairs {
    fn blocks(self) -> usize {
        match self {
            Self::None => 1,
            Self::SharedWeights | Self::SplitSum => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SHARED: usize = 227 << 10;

    fn h100() -> Properties {
        Properties {
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            capability: (9, 0),
            multiprocessors: 132,
            shared_bytes_max: SHARED as u32,
            l2_bytes: 50 << 20,
            memory_bytes: 80 << 30,
        }
    }

    const LLAMA: TiledShape = TiledShape { outputs: 14336, inputs: 4096, kind: TiledKind::Gated };
    const DOWN: TiledShape = TiledShape { outputs: 4096, inputs: 14336, kind: TiledKind::Plain };

    #[rstest]
    #[case::one_tile_each(128, 224, Pairs::None)]
    #[case::two_turns(256, 224, Pairs::SharedWeights)]
    #[case::four_turns(512, 224, Pairs::SharedWeights)]
    #[case::prompt(2048, 256, Pairs::SharedWeights)]
    #[case::long_prompt(8192, 256, Pairs::SharedWeights)]
    fn llama_is_tiled_as_it_was_measured(
        #[case] rows: usize,
        #[case] tile_rows: usize,
        #[case] pairs: Pairs,
    ) {
        let tiles = LLAMA.tiles(8192, &h100());
        let tile = tiles.iter().min_by_key(|tile| tile.cost(&LLAMA, rows, 132)).unwrap();
        assert_eq!((tile.rows, tile.pairs), (tile_rows, pairs));
    }

    #[test]
    fn long_sums_of_one_tile_are_split() {
        let split = Tile { rows: 64, pairs: Pairs::SplitSum };
        assert_eq!(DOWN.tiles(8192, &h100()), [split]);
        assert_eq!((split.stages(DOWN.kind, SHARED), split.blocks(&DOWN, 100, 132)), (8, 128));
        assert!(DOWN.takes(65) && DOWN.takes(128) && !DOWN.takes(129) && !DOWN.takes(64));
    }

    #[test]
    fn leaves_what_it_cannot_do_to_the_library() {
        let blackwell = Properties { capability: (10, 0), ..h100() };
        assert!(LLAMA.tiles(8192, &blackwell).is_empty());
        assert!(TiledShape { inputs: 4100, ..LLAMA }.tiles(8192, &h100()).is_empty(), "rows");
        assert!(TiledShape { outputs: 100, ..LLAMA }.tiles(8192, &h100()).is_empty(), "columns");
        assert!(TiledShape { outputs: 512, ..DOWN }.tiles(8192, &h100()).is_empty(), "16 blocks");
        assert!(TiledShape { inputs: 4096, ..DOWN }.tiles(8192, &h100()).is_empty(), "short sums");
    }

    #[test]
    fn every_tile_fits() {
        for kind in [TiledKind::Plain, TiledKind::Gated] {
            for tile in Tile::of(kind) {
                let stages = tile.stages(kind, SHARED);
                assert!((4..=STAGES_MAX).contains(&stages), "{tile:?}: {stages}");
                assert!(tile.shared_bytes(kind, stages) <= SHARED, "{tile:?}");
            }
        }
    }
}
