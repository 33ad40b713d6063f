//! What measurements need of a GPU and steps don't: the card's own rates, the library's products, the
//! time that a backend's operations take, and what describing a step takes without any GPU.

pub(super) mod bandwidth;
mod description;
mod products;
pub(super) mod softmax;
mod timing;

use std::path::PathBuf;

use self::bandwidth::ReadBandwidth;
pub use self::description::Description;
pub use self::products::{LibraryProduct, ProductSize};
pub use self::softmax::Softmax;
use super::compile::Compiler;
use super::driver::device::{Device, Priority, Stream};
use super::driver::element::ElementType;
use super::driver::memory::DeviceMemory;
use super::options::CudaOptions;
use super::weights::random::RandomFill;
use crate::error::EngineError;

/// Runs of which the best counts.
const ROUNDS: usize = 5;

/// A GPU to hold models against. Keeps the device open.
#[derive(Debug)]
pub struct Yardstick {
    stream: Stream,
    compiler: Compiler,
    kernel_cache: Option<PathBuf>,
}

/// Times to move some device memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemoryTimes {
    /// To read it all.
    pub read_us: f64,
    /// To copy it to other device memory.
    pub copy_us: f64,
}

// === impl Yardstick ===

impl Yardstick {
    /// Opens the GPU that the options name.
    ///
    /// # Errors
    /// [`EngineError::Device`] says what is missing.
    pub fn open(options: &CudaOptions) -> Result<Self, EngineError> {
        let device = Device::open(options.ordinal, &options.library_folders)?;
        let kernel_cache = options.kernel_cache.clone();
        Ok(Self {
            stream: Stream::new(&device, Priority::High)?,
            compiler: Compiler::new(&device, kernel_cache.clone())?,
            kernel_cache,
        })
    }

    /// As the driver calls the GPU.
    #[must_use]
    pub fn device_name(&self) -> &str {
        &self.device().properties().name
    }

    /// Its name among all GPUs, 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the driver refuses.
    pub fn device_uuid(&self) -> Result<String, EngineError> {
        self.device().uuid()
    }

    /// The least times to move `bytes`; far more than any cache holds tell of the memory.
    ///
    /// # Errors
    /// [`EngineError::Device`] if memory runs out, or a launch fails.
    pub fn memory_times(&self, bytes: usize) -> Result<MemoryTimes, EngineError> {
        let (from, to) = (self.memory(bytes)?, self.memory(bytes)?);
        self.randomize(&from, 1, 1.0)?;
        let reader = ReadBandwidth::new(&self.compiler)?;
        let stream = &self.stream;
        Ok(MemoryTimes {
            read_us: self.least_us(|| reader.read(stream, from.all()))?,
            copy_us: self.least_us(|| stream.copy(to.all(), from.all()))?,
        })
    }

    /// Products of one size, by the library.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the library is missing, or memory runs out.
    pub fn library_product(&self, size: ProductSize) -> Result<LibraryProduct<'_>, EngineError> {
        LibraryProduct::new(self, size)
    }

    /// Softmax of so many rows.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the kernel can't be had, or memory runs out.
    pub fn softmax(&self, rows: usize) -> Result<Softmax<'_>, EngineError> {
        Softmax::new(self, rows)
    }

    fn device(&self) -> &Device {
        self.stream.device()
    }

    fn memory(&self, bytes: usize) -> Result<DeviceMemory, EngineError> {
        DeviceMemory::new(self.device(), bytes)
    }

    /// Fills with bfloat16 around 0. All alike, numbers take so little power that large products run a
    /// tenth faster than real ones.
    fn randomize(&self, memory: &DeviceMemory, key: u64, spread: f32) -> Result<(), EngineError> {
        let fill = RandomFill::new(&self.compiler, ElementType::Bf16)?;
        fill.fill(&self.stream, memory.all(), key, (0.0, spread))
    }

    /// Device time of what `work` submits, in the best of a few rounds.
    fn least_us(
        &self,
        mut work: impl FnMut() -> Result<(), EngineError>,
    ) -> Result<f64, EngineError> {
        (0..ROUNDS).try_fold(f64::INFINITY, |least, _| {
            Ok(least.min(self.stream.time_us(&mut work)?.into()))
        })
    }
}
