//! What the library's products take.

use super::Yardstick;
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::gemm::library::{Matmul, Product};
use crate::error::EngineError;

/// Products of bfloat16, `[rows, inputs]` by `[outputs, inputs]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductSize {
    /// Of the inputs, at most.
    pub rows_max: usize,
    /// Rows of the weight.
    pub outputs: usize,
    /// Columns of the weight.
    pub inputs: usize,
    /// Of the results: bfloat16 or f32.
    pub out_element: ElementType,
    /// Weights that are used in turn: as many as no cache holds, where they come from memory.
    pub copies: usize,
    /// How far from 0 weights lie.
    pub spread: f32,
}

/// The library with such a product's memory.
#[derive(Debug)]
pub struct LibraryProduct<'a> {
    yardstick: &'a Yardstick,
    matmul: Matmul,
    size: ProductSize,
    x: DeviceMemory,
    weights: DeviceMemory,
    out: DeviceMemory,
}

// === impl LibraryProduct ===

impl<'a> LibraryProduct<'a> {
    pub(super) fn new(yardstick: &'a Yardstick, size: ProductSize) -> Result<Self, EngineError> {
        let x = yardstick.memory(size.rows_max * size.inputs * ElementType::Bf16.bytes())?;
        let weights = yardstick.memory(size.copies * size.weight_bytes())?;
        yardstick.randomize(&x, 1, 1.0)?;
        yardstick.randomize(&weights, 2, size.spread)?;
        Ok(Self {
            matmul: Matmul::new(yardstick.device(), yardstick.kernel_cache.as_deref())?,
            out: yardstick.memory(size.rows_max * size.outputs * size.out_element.bytes())?,
            yardstick,
            size,
            x,
            weights,
        })
    }

    /// The least time of one of `turns` products of so many rows, which run as one recording.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the library refuses.
    pub fn time_us(&self, rows: usize, turns: usize) -> Result<f64, EngineError> {
        let stream = &self.yardstick.stream;
        let run = |turn| self.matmul.run(stream, &self.product(rows, turn));
        // Its algorithm is chosen now.
        run(0)?;
        let graph = stream.capture(|| (0..turns).try_for_each(run))?;
        graph.launch(stream)?;
        Ok(self.yardstick.least_us(|| graph.launch(stream))? / turns as f64)
    }

    fn product(&self, rows: usize, turn: usize) -> Product {
        let ProductSize { outputs, inputs, out_element, copies, .. } = self.size;
        Product {
            x: self.x.address(),
            weight: self.weights.at(turn % copies * self.size.weight_bytes()),
            bias: None,
            out: self.out.address(),
            rows,
            outputs,
            inputs,
            x_stride: inputs,
            out_stride: outputs,
            element: ElementType::Bf16,
            out_element,
        }
    }
}

// === impl ProductSize ===

impl ProductSize {
    fn weight_bytes(&self) -> usize {
        self.outputs * self.inputs * ElementType::Bf16.bytes()
    }
}
