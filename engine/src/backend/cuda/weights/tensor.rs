//! Weights and activations in device memory.

use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::Device;
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::error::EngineError;

/// A weight matrix, `[rows, cols]`: dense, contiguous.
#[derive(Debug)]
pub struct CudaMatrix {
    pub(crate) element: ElementType,
    pub(crate) memory: DeviceMemory,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// A weight vector of elements.
#[derive(Debug)]
pub struct CudaVector {
    pub(crate) memory: DeviceMemory,
}

/// Activations: up to a fixed number of rows of `cols` elements, contiguous. Its address never
/// changes, so recorded steps may keep it.
#[derive(Debug)]
pub struct CudaBuffer {
    pub(crate) memory: DeviceMemory,
    pub(crate) element: ElementType,
    pub(crate) cols: usize,
    /// Rows that hold something.
    pub(crate) rows: usize,
}

// === impl CudaMatrix ===

impl CudaMatrix {
    pub(crate) fn address(&self) -> Address {
        self.memory.address()
    }
}

// === impl CudaVector ===

impl CudaVector {
    pub(crate) fn address(&self) -> Address {
        self.memory.address()
    }
}

// === impl CudaBuffer ===

impl CudaBuffer {
    pub(crate) fn new(
        device: &Device,
        element: ElementType,
        rows_max: usize,
        cols: usize,
    ) -> Result<Self, EngineError> {
        let memory = DeviceMemory::new(device, rows_max * cols * element.bytes())?;
        Ok(Self { memory, element, cols, rows: 0 })
    }

    pub(crate) fn address(&self) -> Address {
        self.memory.address()
    }

    /// Makes it hold `rows` rows, whose contents are left over from before.
    pub(crate) fn resize(&mut self, rows: usize) {
        assert!(
            rows * self.cols * self.element.bytes() <= self.memory.bytes(),
            "a step has no more rows than it was planned for"
        );
        self.rows = rows;
    }
}
