//! How fast memory is read: the twin of `measure/bandwidth.cu`. For measuring, not for steps.

use crate::backend::cuda::compile::{Compiler, Constants, Defines};
use crate::backend::cuda::driver::address::Span;
use crate::backend::cuda::driver::device::Stream;
use crate::backend::cuda::driver::kernel::{Kernel, Launch, Wide, args};
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::error::EngineError;

/// Of a block.
const THREADS: u32 = 512;

/// Blocks for each multiprocessor: as many as are resident, and as many waiting.
const BLOCKS_EACH: u32 = 8;

/// Bytes of one load.
const WORD_BYTES: usize = 16;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants = &[("THREADS", THREADS as usize)];

/// Reads memory and does nothing with it.
#[derive(Debug)]
pub(super) struct ReadBandwidth {
    kernel: Kernel,
    multiprocessors: u32,
    sum: DeviceMemory,
}

// === impl ReadBandwidth ===

impl ReadBandwidth {
    /// Compiles, or finds, the kernel.
    ///
    /// # Errors
    /// As [`Compiler::module`].
    pub(super) fn new(compiler: &Compiler) -> Result<Self, EngineError> {
        let module = compiler.module("measure/bandwidth.cu", &Defines::of(CONSTANTS))?;
        let device = compiler.device();
        Ok(Self {
            kernel: module.kernel("read_all")?,
            multiprocessors: device.properties().multiprocessors,
            sum: DeviceMemory::new(device, size_of::<u32>())?,
        })
    }

    /// Reads device memory, aligned to 16; a rest below 16 is left.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn read(&self, stream: &Stream, from: Span<'_>) -> Result<(), EngineError> {
        let launch = Launch {
            grid: [self.multiprocessors * BLOCKS_EACH, 1, 1],
            block: THREADS,
            shared_bytes: 0,
            cluster: 1,
            overlaps: false,
        };
        let words = Wide((from.bytes() / WORD_BYTES) as u64);
        self.kernel.launch(stream, launch, args![from.address(), words, self.sum.address()])
    }
}
