//! Random weights, made where they are needed: the twin of `weights/random.cu`.

use crate::backend::cuda::compile::{Compiler, Defines};
use crate::backend::cuda::driver::address::Span;
use crate::backend::cuda::driver::device::Stream;
use crate::backend::cuda::driver::kernel::{Kernel, Launch, Wide, args};
use crate::backend::cuda::driver::tensor_map::ElementType;
use crate::error::EngineError;

/// Blocks of the launch: enough to fill any GPU a few times.
const BLOCKS_MAX: u64 = 4096;

const THREADS: u32 = 256;

/// Fills device memory with the numbers that [`crate::weights`] gives a dummy model.
#[derive(Clone, Debug)]
pub(crate) struct RandomFill {
    kernel: Kernel,
}

// === impl RandomFill ===

impl RandomFill {
    /// For memory of this type: 16 bits.
    ///
    /// # Errors
    /// As [`Compiler::module`].
    pub(crate) fn new(compiler: &Compiler, element: ElementType) -> Result<Self, EngineError> {
        let module = compiler.module("weights/random.cu", &Defines::new().flag(element.flag()))?;
        Ok(Self { kernel: module.kernel("fill_random")? })
    }

    /// Fills with numbers uniform on `[center - spread, center + spread]`, bit for bit those that
    /// the host makes of `key`.
    ///
    /// - `to`: whole elements.
    /// - `key`: of the Philox generator; a tensor's is the seed combined with its name.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(crate) fn fill(
        &self,
        stream: &Stream,
        to: Span<'_>,
        key: u64,
        (center, spread): (f32, f32),
    ) -> Result<(), EngineError> {
        let elements = to.bytes() as u64 / 2;
        if elements == 0 {
            return Ok(());
        }
        let blocks = elements.div_ceil(4 * u64::from(THREADS)).min(BLOCKS_MAX);
        let launch = Launch {
            grid: [blocks as u32, 1, 1],
            block: THREADS,
            shared_bytes: 0,
            cluster: 1,
            overlaps: false,
        };
        let (to, elements, key) = (to.address(), Wide(elements), Wide(key));
        self.kernel.launch(stream, launch, args![to, elements, key, center, spread])
    }
}
