//! Rows of logits to probabilities: the twin of `measure/softmax.cu`. For measuring, not for steps.

use super::Yardstick;
use crate::backend::cuda::compile::{Constants, Defines};
use crate::backend::cuda::driver::kernel::{Kernel, Launch, args};
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::error::EngineError;

/// Threads of a block, which takes one row.
const THREADS: u32 = 512;

/// Calls that are timed together.
const TURNS: usize = 10;

/// What the kernel has from here.
pub(crate) const CONSTANTS: Constants =
    &[("SOFTMAX_COLS", Softmax::COLS), ("SOFTMAX_THREADS", THREADS as usize)];

/// The kernel with its memory: f32 `[rows, COLS]`.
#[derive(Debug)]
pub struct Softmax<'a> {
    yardstick: &'a Yardstick,
    kernel: Kernel,
    rows: usize,
    x: DeviceMemory,
    out: DeviceMemory,
}

// === impl Softmax ===

impl<'a> Softmax<'a> {
    /// Columns of a row.
    pub const COLS: usize = 8192;

    pub(super) fn new(yardstick: &'a Yardstick, rows: usize) -> Result<Self, EngineError> {
        let module = yardstick.compiler.module("measure/softmax.cu", &Defines::of(CONSTANTS))?;
        let memory = || yardstick.memory(rows * Self::COLS * size_of::<f32>());
        let kernel = module.kernel("softmax_rows")?;
        Ok(Self { yardstick, kernel, rows, x: memory()?, out: memory()? })
    }

    /// The probabilities of given logits.
    ///
    /// - `x`: all rows.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    ///
    /// # Panics
    /// If there are other than all rows.
    pub fn run(&self, x: &[f32]) -> Result<Vec<f32>, EngineError> {
        assert_eq!(x.len(), self.rows * Self::COLS, "all rows");
        let stream = &self.yardstick.stream;
        stream.write(self.x.all(), x)?;
        // What isn't written shows.
        stream.fill(self.out.all(), 0xFF)?;
        self.submit()?;
        let mut out = vec![0.0_f32; x.len()];
        stream.read(&mut out, self.out.all())?;
        Ok(out)
    }

    /// The least time of one call.
    ///
    /// # Errors
    /// [`EngineError::Device`] if a launch fails.
    pub fn time_us(&self) -> Result<f64, EngineError> {
        let all = || (0..TURNS).try_for_each(|_| self.submit());
        Ok(self.yardstick.least_us(all)? / TURNS as f64)
    }

    fn submit(&self) -> Result<(), EngineError> {
        let launch = Launch {
            grid: [self.rows as u32, 1, 1],
            block: THREADS,
            shared_bytes: 0,
            cluster: 1,
            overlaps: false,
        };
        let (stream, x, out) = (&self.yardstick.stream, self.x.address(), self.out.address());
        self.kernel.launch(stream, launch, args![x, out])
    }
}
