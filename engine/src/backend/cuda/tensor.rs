//! Weights and activations in device memory.

use super::driver::address::Address;
use super::driver::device::Device;
use super::driver::element::ElementType;
use super::driver::memory::DeviceMemory;
use crate::error::EngineError;

/// A weight matrix, `[rows, cols]`: dense, contiguous.
#[derive(Debug)]
pub struct CudaMatrix {
    pub(super) element: ElementType,
    pub(super) memory: DeviceMemory,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

/// A weight vector of elements.
#[derive(Debug)]
pub struct CudaVector {
    pub(super) memory: DeviceMemory,
}

/// Activations: up to a fixed number of rows of `cols` elements, contiguous. Its address never
/// changes, so recorded steps may keep it.
#[derive(Debug)]
pub struct CudaBuffer {
    pub(super) memory: DeviceMemory,
    pub(super) element: ElementType,
    pub(super) cols: usize,
    /// Rows that hold something.
    pub(super) rows: usize,
}

// === impl CudaMatrix ===

impl CudaMatrix {
    pub(super) fn address(&self) -> Address {
        self.memory.address()
    }
}

// === impl CudaVector ===

impl CudaVector {
    pub(super) fn address(&self) -> Address {
        self.memory.address()
    }
}

// === impl CudaBuffer ===

impl CudaBuffer {
    pub(super) fn new(
        device: &Device,
        element: ElementType,
        rows_max: usize,
        cols: usize,
    ) -> Result<Self, EngineError> {
        let memory = DeviceMemory::new(device, rows_max * cols * element.bytes())?;
        Ok(Self { memory, element, cols, rows: 0 })
    }

    pub(super) fn address(&self) -> Address {
        self.memory.address()
    }

    /// Makes it hold `rows` rows, whose contents are left over from before.
    pub(super) fn resize(&mut self, rows: usize) {
        assert!(
            rows * self.cols * self.element.bytes() <= self.memory.bytes(),
            "a step has no more rows than it was planned for"
        );
        self.rows = rows;
    }
}
