//! Causal attention of many query tokens over pages, on Hopper: the twin of `attention/prefill.cu`.

mod tiles;

use self::tiles::{JOINT_WORDS, Joint, TILE_WORDS, Tile, divide, divide_keys};
use crate::backend::cuda::compile::{Compiler, Constants, Defines};
use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::{Device, Stream};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::kernel::{Kernel, Launch, args};
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::driver::tensor_map::TensorMap;
use crate::backend::cuda::step::batch::{PrefillPlan, PrefillRows, WordRing};
use crate::config::HeadShape;
use crate::error::EngineError;

/// The only GPUs with the instructions that the kernel is written in.
const CAPABILITY: (u32, u32) = (9, 0);

/// Keys that the kernel takes at a time.
const TILE_KEYS: usize = 128;

/// Tiles of keys, and of values, in flight.
const STAGES: usize = 2;

/// Tiles of queries in flight.
const QUERY_STAGES: usize = 2;

/// Query rows and threads of a warpgroup.
const WARPGROUP_ROWS: usize = 64;
const WARPGROUP_THREADS: usize = 128;

/// Elements of a row of the swizzle, which copies are made of.
const HALF: usize = 64;

/// Query heads that a tile packs at most.
const PACK_MAX: usize = 16;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[
    ("TILE_KEYS", TILE_KEYS),
    ("STAGES", STAGES),
    ("QUERY_STAGES", QUERY_STAGES),
    ("WARPGROUP_ROWS", WARPGROUP_ROWS),
    ("TILE_WORDS", TILE_WORDS),
    ("JOINT_WORDS", JOINT_WORDS),
];

/// The kernel for one model's pages, and the list of work it takes from. That serves one stream at
/// a time.
#[derive(Debug)]
pub(crate) struct PrefillAttention {
    shape: PrefillShape,
    kernel: Kernel,
    join: Kernel,
    pages: TensorMap,
    /// i32: what the kernel counts claimed work with, and leaves at 0.
    counter: DeviceMemory,
    tiles: WordRing,
    joints: WordRing,
    tiles_max: usize,
    /// Multiprocessors of the device: what work is divided for.
    workers: usize,
    /// f32 `[parts, sums of a thread, threads]`, and of each thread the maxima and totals of two rows.
    part_sums: DeviceMemory,
    part_stats: DeviceMemory,
}

/// What the kernel is compiled for, and what bounds a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefillShape {
    /// Of activations and pages: 16 bits.
    pub(crate) element: ElementType,
    /// Heads, key/value heads, their size.
    pub(crate) heads: HeadShape,
    /// Tokens of a KV block.
    pub(crate) block_tokens: usize,
    /// Rows of a step.
    pub(crate) rows_max: usize,
    /// Sequences of a step.
    pub(crate) sequences_max: usize,
}

/// All layers' pages, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PagePool {
    /// `[layers, blocks, 2, kv_heads, block_tokens, head_dim]`.
    pub(crate) address: Address,
    /// Layers.
    pub(crate) layers: usize,
    /// Of one layer.
    pub(crate) blocks: usize,
}

/// One layer's attention of some sequences' rows. Addresses are of device memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TiledRead<'a> {
    /// `[qkv_rows, qkv_width]`: the queries, rotated.
    pub(crate) qkv: Address,
    /// Rows of the step.
    pub(crate) qkv_rows: usize,
    /// `[qkv_rows, q_width]`, written for the sequences' rows.
    pub(crate) out: Address,
    /// The sequences.
    pub(crate) rows: &'a PrefillRows,
    /// What [`PrefillAttention::plan`] made of `rows`.
    pub(crate) plan: PrefillPlan,
    /// The layer's first block in the pool. Its pages hold these rows' keys and values already.
    pub(crate) block_base: usize,
    /// How far back a row sees, itself included; at least 1.
    pub(crate) window: Option<u32>,
    /// Of the scores.
    pub(crate) scale: f32,
    /// To run on.
    pub(crate) multiprocessors: u32,
}

// === impl PrefillAttention ===

impl PrefillAttention {
    /// Compiles, or finds, the kernel for a shape that it [supports](PrefillShape::is_supported).
    ///
    /// # Errors
    /// As [`Compiler::module`]; [`EngineError::Device`] for another shape, or if memory runs out.
    pub(crate) fn new(
        compiler: &Compiler,
        stream: &Stream,
        shape: PrefillShape,
        pool: PagePool,
    ) -> Result<Self, EngineError> {
        let device = compiler.device();
        if !shape.is_supported(device) {
            return Err(unsupported("shape", "see PrefillShape::is_supported"));
        }
        let module = compiler.module("attention/prefill.cu", &shape.defines())?;
        let counter = DeviceMemory::new(device, size_of::<i32>())?;
        stream.fill(counter.all(), 0)?;
        let workers = device.properties().multiprocessors as usize;
        let tiles_max = shape.tiles_max() + shape.parts_max(workers);
        let threads = shape.parts_max(workers) * shape.packs() * shape.threads();
        Ok(Self {
            shape,
            kernel: module.kernel("prefill_attention")?,
            join: module.kernel("join_parts")?,
            pages: shape.map_pages(pool)?,
            counter,
            tiles: WordRing::new(device, tiles_max * TILE_WORDS)?,
            joints: WordRing::new(device, shape.parts_max(workers) * JOINT_WORDS)?,
            tiles_max,
            workers,
            part_sums: DeviceMemory::new(device, threads * shape.heads.head_dim / 2 * 4)?,
            part_stats: DeviceMemory::new(device, threads * 4 * 4)?,
        })
    }

    /// Divides a step's work, and submits the copy of its list.
    ///
    /// # Errors
    /// [`EngineError::Device`] if there are more rows than were planned for, or the copy fails.
    pub(crate) fn plan(
        &mut self,
        stream: &Stream,
        rows: &PrefillRows,
    ) -> Result<PrefillPlan, EngineError> {
        let chunks = rows.chunks.iter().map(|chunk| (chunk.first_row, chunk.rows, chunk.context));
        let mut tiles = divide(chunks, self.shape.tile_tokens());
        let joints = divide_keys(&mut tiles, self.shape.packs(), self.workers);
        if tiles.len() > self.tiles_max {
            return Err(unsupported("number of rows", "more than were planned for"));
        }
        let words: Vec<u32> = tiles.iter().flat_map(Tile::words).collect();
        let address = self.tiles.put(stream, words.into_iter())?;
        let operations = self.shape.operations(&tiles);
        let words: Vec<u32> = joints.iter().flat_map(Joint::words).collect();
        let joined =
            if joints.is_empty() { address } else { self.joints.put(stream, words.into_iter())? };
        Ok(PrefillPlan { address, tiles: tiles.len(), joined, joints: joints.len(), operations })
    }

    /// Computes `out[row] = softmax(scale * q[row] K^T) V` over what each row sees, head by head.
    ///
    /// A row's result is the same, bit for bit, however its prompt was cut into steps, unless few rows meet so many keys that these are
    /// divided. The launch follows from the plan: it isn't for recorded steps.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(crate) fn run(&self, stream: &Stream, read: &TiledRead<'_>) -> Result<(), EngineError> {
        let HeadShape { heads, kv_heads, .. } = self.shape.heads;
        let items = read.plan.tiles * self.shape.packs();
        if items == 0 {
            return Ok(());
        }
        let launch = Launch {
            grid: [(items as u32).min(read.multiprocessors), 1, 1],
            block: (WARPGROUP_THREADS + self.shape.threads()) as u32,
            shared_bytes: self.shape.shared_bytes() as u32,
            cluster: 1,
            overlaps: true,
        };
        let queries = self.shape.map_queries(read.qkv, read.qkv_rows)?;
        self.kernel.launch(
            stream,
            launch,
            args![
                queries,
                self.pages,
                read.out,
                read.plan.address,
                read.rows.contexts,
                read.rows.tables,
                self.counter.address(),
                self.part_sums.address(),
                self.part_stats.address(),
                read.plan.tiles as i32,
                heads as i32,
                kv_heads as i32,
                read.rows.table_stride as i32,
                read.block_base as i32,
                read.window.map_or(0, |window| window.min(i32::MAX as u32) as i32),
                self.shape.heads.q_width() as i32,
                read.scale
            ],
        )?;
        self.join(stream, read)
    }

    /// Puts the parts of tiles together whose keys were divided.
    fn join(&self, stream: &Stream, read: &TiledRead<'_>) -> Result<(), EngineError> {
        let PrefillPlan { joined, joints, .. } = read.plan;
        if joints == 0 {
            return Ok(());
        }
        let launch = Launch {
            grid: [
                (joints * self.shape.packs()) as u32,
                (self.shape.heads.head_dim / 32) as u32,
                1,
            ],
            block: self.shape.threads() as u32,
            shared_bytes: 0,
            cluster: 1,
            overlaps: true,
        };
        self.join.launch(
            stream,
            launch,
            args![
                self.part_sums.address(),
                self.part_stats.address(),
                read.out,
                joined,
                self.shape.heads.heads as i32,
                self.shape.heads.q_width() as i32,
                read.scale
            ],
        )
    }
}

// === impl PrefillShape ===

impl PrefillShape {
    /// Whether the kernel does this on a device. [`super::portable`] does the rest.
    pub(crate) fn is_supported(&self, device: &Device) -> bool {
        let properties = device.properties();
        properties.capability == CAPABILITY
            && self.fits_kernel()
            && self.shared_bytes() <= properties.shared_bytes_max as usize
    }

    /// Whether the kernel is written for it.
    fn fits_kernel(&self) -> bool {
        let HeadShape { heads, kv_heads, head_dim } = self.heads;
        self.element.bytes() == 2
            && matches!(head_dim, 64 | 128)
            && matches!(self.block_tokens, 16 | 32 | 64)
            && kv_heads > 0
            && heads > 0
            && heads.is_multiple_of(kv_heads)
    }

    fn defines(&self) -> Defines {
        Defines::of(CONSTANTS)
            .flag(self.element.flag())
            .with("HEAD_DIM", self.heads.head_dim)
            .with("BLOCK_TOKENS", self.block_tokens)
            .with("PACK", self.pack())
            .with("CONSUMERS", self.consumers())
    }

    /// Query heads of a tile: as many of a group as divide a warpgroup's rows.
    fn pack(&self) -> usize {
        (1 << self.heads.group().trailing_zeros()).min(PACK_MAX)
    }

    /// Tiles of heads for each tile of tokens.
    fn packs(&self) -> usize {
        self.heads.heads / self.pack()
    }

    /// Threads that compute.
    fn threads(&self) -> usize {
        WARPGROUP_THREADS * self.consumers()
    }

    /// Parts of tiles in a step at most.
    fn parts_max(&self, workers: usize) -> usize {
        tiles::parts_max(self.packs(), workers)
    }

    /// Warpgroups that compute: as many query rows as registers and shared memory hold.
    fn consumers(&self) -> usize {
        if self.heads.head_dim == 64 { 3 } else { 2 }
    }

    /// Query tokens of a tile.
    fn tile_tokens(&self) -> usize {
        WARPGROUP_ROWS * self.consumers() / self.pack()
    }

    /// What tiles take in a layer: whole tiles of queries and keys are multiplied, twice.
    fn operations(&self, tiles: &[Tile]) -> u64 {
        let key_tiles: usize = tiles.iter().map(Tile::key_tiles).sum();
        let pairs = key_tiles * TILE_KEYS * WARPGROUP_ROWS * self.consumers();
        (pairs * self.packs() * 4 * self.heads.head_dim) as u64
    }

    /// Tiles of a step: whole ones, and each sequence's rest.
    fn tiles_max(&self) -> usize {
        self.rows_max / self.tile_tokens() + self.sequences_max
    }

    /// What the kernel lays out in shared memory: queries, keys and values, barriers; each begins at
    /// a whole tile of the swizzle, as the whole must.
    fn shared_bytes(&self) -> usize {
        const SWIZZLE_BYTES: usize = 1024;
        let queries = QUERY_STAGES * self.consumers() * WARPGROUP_ROWS;
        let keys_and_values = 2 * STAGES * TILE_KEYS;
        let row_bytes = self.heads.head_dim * self.element.bytes();
        (queries + keys_and_values) * row_bytes + 2 * SWIZZLE_BYTES
    }

    /// Query heads as `[halves, rows, heads, HALF]`.
    fn map_queries(&self, qkv: Address, rows: usize) -> Result<TensorMap, EngineError> {
        let HeadShape { heads, head_dim, .. } = self.heads;
        let bytes = |elements: usize| (elements * self.element.bytes()) as u64;
        let (halves, pack) = (head_dim / HALF, self.pack());
        TensorMap::new(
            qkv,
            self.element,
            &[HALF as u64, heads as u64, rows as u64, halves as u64],
            &[bytes(head_dim), bytes(self.heads.qkv_width()), bytes(HALF)],
            &[HALF as u32, pack as u32, (WARPGROUP_ROWS / pack) as u32, halves as u32],
        )
    }

    /// One head's keys or values of a block after the other, as
    /// `[pages, block_tokens / 8, halves, 8, HALF]`: so they land in groups of 8 tokens, which the
    /// kernel wants evenly apart.
    fn map_pages(&self, pool: PagePool) -> Result<TensorMap, EngineError> {
        const GROUP: usize = 8;
        let HeadShape { kv_heads, head_dim, .. } = self.heads;
        let pages = pool.layers * pool.blocks * 2 * kv_heads;
        if pages > i32::MAX as usize {
            return Err(unsupported("number of blocks", "the kernel counts pages in 31 bits"));
        }
        let bytes = |elements: usize| (elements * self.element.bytes()) as u64;
        let (halves, groups) = (head_dim / HALF, self.block_tokens / GROUP);
        TensorMap::new(
            pool.address,
            self.element,
            &[HALF as u64, GROUP as u64, halves as u64, groups as u64, pages as u64],
            &[
                bytes(head_dim),
                bytes(HALF),
                bytes(GROUP * head_dim),
                bytes(self.block_tokens * head_dim),
            ],
            &[HALF as u32, GROUP as u32, halves as u32, groups as u32, 1],
        )
    }
}

fn unsupported(what: &str, why: &str) -> EngineError {
    EngineError::Device(format!("prefill attention: {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const HOPPER: usize = 227 << 10;

    fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> PrefillShape {
        PrefillShape {
            element: ElementType::Bf16,
            heads: HeadShape { heads, kv_heads, head_dim },
            block_tokens: 16,
            rows_max: 1000,
            sequences_max: 3,
        }
    }

    #[rstest]
    #[case::llama(shape(32, 8, 128), 4, 32)]
    #[case::qwen(shape(28, 4, 128), 1, 128)]
    #[case::one_kv_head(shape(48, 1, 64), 16, 12)]
    #[case::no_groups(shape(12, 12, 64), 1, 192)]
    #[case::six(shape(24, 4, 128), 2, 64)]
    fn as_many_heads_are_packed_as_divide_group_and_rows(
        #[case] shape: PrefillShape,
        #[case] pack: usize,
        #[case] tile_tokens: usize,
    ) {
        assert!(shape.fits_kernel());
        assert!(shape.shared_bytes() <= HOPPER);
        assert_eq!((shape.pack(), shape.tile_tokens()), (pack, tile_tokens));
    }

    #[rstest]
    #[case(shape(32, 8, 96))]
    #[case(shape(32, 7, 128))]
    #[case(PrefillShape { block_tokens: 8, ..shape(32, 8, 128) })]
    #[case(PrefillShape { element: ElementType::F32, ..shape(32, 8, 128) })]
    fn other_shapes_are_left_to_others(#[case] shape: PrefillShape) {
        assert!(!shape.fits_kernel());
    }

    #[test]
    fn the_list_has_room_for_every_step() {
        let shape = shape(32, 8, 128);
        for first in [1, 31, 32, 33, 500, 998] {
            let chunks = [(0, first, first), (first, 1, 1), (first + 1, 999 - first, 999)];
            assert!(divide(chunks.into_iter(), shape.tile_tokens()).len() <= shape.tiles_max());
        }
    }
}
