//! A GPU for this backend's own tests, which are ignored unless asked for, as `cargo xtask test` does where there
//! is one.

use half::bf16;

use super::compile::Compiler;
use super::driver::address::Span;
use super::driver::device::{Device, Priority, Stream};
use super::driver::element::ElementType;
use super::driver::memory::DeviceMemory;
use super::weights::random::RandomFill;
use crate::error::EngineError;

/// What most tests need.
pub(crate) struct Gpu {
    pub(crate) device: Device,
    pub(crate) stream: Stream,
    pub(crate) compiler: Compiler,
    _cache: tempfile::TempDir,
}

// === impl Gpu ===

impl Gpu {
    /// The first GPU.
    pub(crate) fn open() -> Self {
        let device = Device::open(0, &[]).unwrap();
        let stream = Stream::new(&device, Priority::High).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let compiler = Compiler::new(&device, Some(cache.path().join("kernels"))).unwrap();
        Self { device, stream, compiler, _cache: cache }
    }

    pub(crate) fn memory(&self, bytes: usize) -> DeviceMemory {
        DeviceMemory::new(&self.device, bytes).unwrap()
    }

    pub(crate) fn random(&self, to: Span<'_>, key: u64, range: (f32, f32)) {
        let fill = RandomFill::new(&self.compiler, ElementType::Bf16).unwrap();
        fill.fill(&self.stream, to, key, range).unwrap();
    }

    pub(crate) fn bf16s(&self, from: Span<'_>) -> Vec<f32> {
        let mut out = vec![0_u16; from.bytes() / 2];
        self.stream.read(&mut out, from).unwrap();
        out.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
    }
}

/// Of a device error.
pub(crate) fn message(error: EngineError) -> String {
    match error {
        EngineError::Device(text) => text,
        other => panic!("want a device error, got {other:?}"),
    }
}
