//! KV memory on the device, and the copies into it and out of it, by the copy engines, and from pool to
//! pool, by kernels: the twin of `kv.cu`.

mod fences;
mod lanes;

use kv_cache::{
    BlockId, BlockRef, Fence, Kin, KvLayout, KvRegion, PageRange, PeerRegion, RegionError,
};
use rayon::prelude::*;

use super::compile::{Compiler, Constants, Defines};
use super::driver::address::{Address, Span};
use super::driver::device::{Device, Stream};
use super::driver::kernel::{Kernel, Launch, args};
use super::driver::memory::DeviceMemory;
use crate::error::EngineError;
pub(super) use fences::FenceTable;
use lanes::{Lane, Lanes, STAGINGS};

/// Threads of the kernels.
const THREADS: u32 = 512;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[("THREADS", THREADS as usize)];

/// Calls that copy to and from the host at the same time: while one fills or empties its buffer, the
/// next has the link.
const LANES: usize = 4;

/// Blocks of a copy on the device: enough to draw all of its bandwidth.
const DEVICE_BLOCKS: usize = 132;

/// Calls that copy on the device at the same time. They come when their fence has passed, and a copy
/// takes some 20 us.
const DIRECT_LANES: usize = 4;

/// Pinned memory is copied to and from a caller's by this much a thread.
const PIECE_BYTES: usize = 1 << 20;

/// A vector access; pages are whole ones.
const VECTOR_BYTES: usize = 16;

/// All pages of a pool: `[layers][blocks][page]`, a page being `[2 (k, v), kv_heads, block_tokens,
/// head_dim]`.
///
/// Which blocks belong to whom is the pool's concern. A block that a submitted step may still write
/// is not free until that step's fence has passed: [`KvRegion::scatter`] waits for no step.
#[derive(Debug)]
pub(super) struct CudaKv {
    layout: KvLayout,
    blocks: u32,
    memory: DeviceMemory,
    fences: FenceTable,
    lanes: Lanes,
    direct: Lanes,
    kernels: PageKernels,
}

#[derive(Debug)]
struct PageKernels {
    carry: Kernel,
    copy_block: Kernel,
}

/// Which way pages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the pool to the buffer.
    Out,
    /// From the buffer to the pool.
    In,
}

/// What one call copies to or from the host.
struct Copy<'a> {
    kv: &'a CudaKv,
    way: Way,
    pages: &'a PageRange<'a>,
    /// Pages that fit a buffer.
    staged: usize,
}

// === impl CudaKv ===

impl CudaKv {
    /// Takes memory for `blocks` blocks, zeroed.
    ///
    /// - `stream`: clears it; steps run on it.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out, or for pages that kernels can't copy.
    pub(super) fn new(
        compiler: &Compiler,
        stream: &Stream,
        layout: &KvLayout,
        blocks: u32,
    ) -> Result<Self, EngineError> {
        let device = compiler.device();
        let page = layout.page_bytes();
        if !page.is_multiple_of(VECTOR_BYTES) {
            let reason = format!("pages of {page} bytes: kernels copy {VECTOR_BYTES} at once");
            return Err(EngineError::Device(reason));
        }
        let memory = DeviceMemory::new(device, layout.layers() as usize * blocks as usize * page)?;
        stream.fill(memory.all(), 0)?;
        let module = compiler.module("kv.cu", &Defines::of(CONSTANTS))?;
        let kernels = PageKernels {
            carry: module.kernel("carry_pages")?,
            copy_block: module.kernel("copy_block")?,
        };
        stream.synchronize()?;
        Ok(Self {
            layout: layout.clone(),
            blocks,
            memory,
            fences: FenceTable::new(device),
            lanes: Lanes::staged(device, LANES, page)?,
            direct: Lanes::direct(device, DIRECT_LANES, blocks as usize)?,
            kernels,
        })
    }

    /// Blocks of each layer.
    #[must_use]
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Where a layer's pages begin: `[blocks][page]`.
    #[must_use]
    pub(super) fn layer(&self, layer: u32) -> Address {
        let pages = layer as usize * self.blocks as usize;
        self.memory.at(pages * self.layout.page_bytes())
    }

    /// A fence behind everything submitted to the stream of steps.
    ///
    /// # Errors
    /// As [`FenceTable::fence`].
    pub(super) fn fence(&self, stream: &Stream) -> Result<Fence, EngineError> {
        self.fences.fence(stream)
    }

    /// Copies a block to another in all layers, in the stream of steps.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn copy_block(
        &self,
        stream: &Stream,
        from: BlockId,
        to: BlockId,
    ) -> Result<(), EngineError> {
        let launch = Launch {
            grid: [self.layout.layers(), 1, 1],
            block: THREADS,
            shared_bytes: 0,
            cluster: 1,
            overlaps: true,
        };
        let (pool, blocks, vectors) =
            (self.memory.address(), self.blocks as i32, self.page_vectors());
        let kernel = &self.kernels.copy_block;
        kernel.launch(stream, launch, args![pool, blocks, vectors, from.0, to.0])
    }

    fn device(&self) -> &Device {
        self.memory.device()
    }

    fn page_vectors(&self) -> i32 {
        (self.layout.page_bytes() / VECTOR_BYTES) as i32
    }

    fn copy_out(
        &self,
        pages: &PageRange<'_>,
        fence: Fence,
        out: &mut [u8],
    ) -> Result<(), EngineError> {
        self.device().bind()?;
        // Before there is a lane: a lane that waits for one prompt's step is one that no other prompt's
        // finished pages go by.
        self.fences.pass(fence)?;
        let mut lane = self.lanes.borrow();
        let staged = lane.staged_pages(self.layout.page_bytes());
        let copy = Copy { kv: self, way: Way::Out, pages, staged };
        copy.submit(&mut lane, 0)?;
        let pieces = out.chunks_mut(copy.staged * self.layout.page_bytes());
        for (piece, out) in pieces.enumerate() {
            // The device fills one buffer while the host empties the other.
            copy.submit(&mut lane, piece + 1)?;
            let staging = &mut lane.stagings[piece % STAGINGS];
            copy_bytes(out, staging.host(0..out.len())?);
        }
        Ok(())
    }

    fn copy_in(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), EngineError> {
        self.device().bind()?;
        let mut lane = self.lanes.borrow();
        let staged = lane.staged_pages(self.layout.page_bytes());
        let copy = Copy { kv: self, way: Way::In, pages, staged };
        let pieces = bytes.chunks(copy.staged * self.layout.page_bytes());
        for (piece, bytes) in pieces.enumerate() {
            let staging = &mut lane.stagings[piece % STAGINGS];
            copy_bytes(staging.host(0..bytes.len())?, bytes);
            copy.submit(&mut lane, piece)?;
        }
        lane.stream.synchronize()
    }

    /// Copies blocks in from where each lies by itself: the host puts them together where the device reads them.
    fn copy_blocks_in(&self, blocks: &[BlockRef], from: &[&[u8]]) -> Result<(), EngineError> {
        self.device().bind()?;
        let pages = PageRange { layers: 0..self.layout.layers(), blocks };
        let page = self.layout.page_bytes();
        let mut lane = self.lanes.borrow();
        let staged = lane.staged_pages(page);
        let copy = Copy { kv: self, way: Way::In, pages: &pages, staged };
        for piece in 0..pages.pages().div_ceil(staged) {
            let first = piece * staged;
            let bytes = (pages.pages() - first).min(staged) * page;
            let staging: &mut [u8] = lane.stagings[piece % STAGINGS].host(0..bytes)?;
            let places = staging.par_chunks_mut(page).with_min_len(PIECE_BYTES.div_ceil(page));
            places.enumerate().for_each(|(at, place)| {
                let (layer, block) = ((first + at) / from.len(), (first + at) % from.len());
                place.copy_from_slice(&from[block][layer * page..][..page]);
            });
            copy.submit(&mut lane, piece)?;
        }
        lane.stream.synchronize()
    }
}

impl CudaKv {
    /// Copies pages of another pool. Its fence is waited for here, not on the stream: a stream that
    /// waits holds up what comes to it later with an earlier fence, and takes one of the few queues
    /// of the device, which steps need.
    fn carry(
        &self,
        pages: &PageRange<'_>,
        from: &Self,
        (blocks, fence): (&[BlockRef], Fence),
    ) -> Result<(), EngineError> {
        self.device().bind()?;
        from.fences.pass(fence)?;
        let mut lane = self.direct.borrow();
        let both = pages.blocks.iter().chain(blocks);
        let list = lane.put_list(both.map(|block: &BlockRef| block.block.0))?;
        let launch = Launch {
            grid: [pages.pages().min(DEVICE_BLOCKS) as u32, 1, 1],
            block: THREADS,
            shared_bytes: 0,
            cluster: 1,
            overlaps: false,
        };
        let (to, source) = (self.memory.address(), from.memory.address());
        let (listed, blocks) = (pages.blocks.len() as i32, self.blocks as i32);
        let (layer, vectors) = (pages.layers.start as i32, self.page_vectors());
        let (peer_blocks, count) = (from.blocks as i32, pages.pages() as i32);
        let arguments = args![to, source, list, listed, blocks, peer_blocks, layer, vectors, count];
        self.kernels.carry.launch(&lane.stream, launch, arguments)?;
        lane.stream.synchronize()
    }
}

impl KvRegion for CudaKv {
    fn layout(&self) -> &KvLayout {
        &self.layout
    }

    fn settle(&self, fence: Fence) -> Result<(), RegionError> {
        let passed = self.device().bind().and_then(|()| self.fences.pass(fence));
        passed.map_err(|why| broken(&why))
    }

    fn gather(
        &self,
        pages: &PageRange<'_>,
        fence: Fence,
        out: &mut [u8],
    ) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, out.len())?;
        self.copy_out(pages, fence, out).map_err(|why| broken(&why))
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        pages.check(&self.layout, self.blocks, bytes.len())?;
        self.copy_in(pages, bytes).map_err(|why| broken(&why))
    }

    fn restore(&self, blocks: &[BlockRef], from: &[&[u8]]) -> Result<(), RegionError> {
        let pages = PageRange { layers: 0..self.layout.layers(), blocks };
        pages.check_blocks(&self.layout, from)?;
        pages.check(&self.layout, self.blocks, pages.pages() * self.layout.page_bytes())?;
        self.copy_blocks_in(blocks, from).map_err(|why| broken(&why))
    }

    fn as_peer(&self) -> Option<&dyn PeerRegion> {
        Some(self)
    }
}

impl Kin for CudaKv {
    fn blocks(&self) -> u32 {
        self.blocks
    }

    fn shares_memory_with(&self, other: &Self) -> bool {
        self.device().raw() == other.device().raw()
    }

    fn copy_from_kin(
        &self,
        pages: &PageRange<'_>,
        peer: &Self,
        from: (&[BlockRef], Fence),
    ) -> Result<(), RegionError> {
        if pages.pages() == 0 {
            return Ok(());
        }
        self.carry(pages, peer, from).map_err(|why| broken(&why))
    }
}

fn broken(why: &EngineError) -> RegionError {
    RegionError::Device(why.to_string())
}

/// Copies between pinned and other memory, on several threads where it is worth it: one alone moves
/// about 10 GB/s, a fifth of the link.
fn copy_bytes(to: &mut [u8], from: &[u8]) {
    if to.len() <= PIECE_BYTES {
        to.copy_from_slice(from);
    } else {
        let pieces = to.par_chunks_mut(PIECE_BYTES).zip(from.par_chunks(PIECE_BYTES));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
    }
}

// === impl Copy ===

impl Copy<'_> {
    /// Submits the copies between a buffer of the lane and the `piece`-th part of the pages, if there
    /// is one.
    ///
    /// The copy engines do it, and no kernel: that would hold multiprocessors for as long as the link
    /// takes, and where processes share the GPU by time, each would wait for the other's steps.
    fn submit(&self, lane: &mut Lane, piece: usize) -> Result<(), EngineError> {
        let first = piece * self.staged;
        let end = self.pages.pages().min(first + self.staged);
        if first >= end {
            return Ok(());
        }
        let Lane { stream, stagings, .. } = lane;
        let staging = &mut stagings[piece % STAGINGS];
        let page = self.kv.layout.page_bytes();
        let mut next = first;
        while next < end {
            let count = self.pages_in_a_row(next, end);
            let buffer = staging.lend((next - first) * page..(next - first + count) * page);
            let pool = self.pages(next, count);
            let (to, from) = match self.way {
                Way::Out => (buffer, pool),
                Way::In => (pool, buffer),
            };
            stream.copy(to, from)?;
            next += count;
        }
        staging.mark(stream)
    }

    /// Where the `index`-th page is, and those that follow it in memory.
    fn pages(&self, index: usize, count: usize) -> Span<'_> {
        let listed = self.pages.blocks.len();
        let layer = self.pages.layers.start as usize + index / listed;
        let block = self.pages.blocks[index % listed].block.index();
        let first = layer * self.kv.blocks as usize + block;
        let page = self.kv.layout.page_bytes();
        self.kv.memory.part(first * page..(first + count) * page)
    }

    /// How many pages from the `first`-th on, before the `end`-th, follow each other in memory.
    fn pages_in_a_row(&self, first: usize, end: usize) -> usize {
        let blocks = self.pages.blocks;
        let first_block = first % blocks.len();
        let of_layer = &blocks[first_block..blocks.len().min(first_block + end - first)];
        1 + of_layer.windows(2).take_while(|pair| pair[1].block.0 == pair[0].block.0 + 1).count()
    }
}

#[cfg(test)]
mod tests;
