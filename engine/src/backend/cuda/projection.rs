//! Products with weights: the kernel for few rows where it wins, the library elsewhere.

use super::CudaBackend;
use super::compiler::Compiler;
use super::device::Stream;
use super::element::ElementType;
use super::matmul::{Matmul, Product, Tuning};
use super::options::CudaOptions;
use super::tensor::{CudaBuffer, CudaMatrix};
use crate::backend::Linear;
use crate::error::EngineError;

/// Everything that multiplies by weights.
pub(super) struct Projections {
    library: Matmul,
}

// === impl Projections ===

impl Projections {
    /// # Errors
    /// As [`Matmul::new`].
    pub(super) fn new(compiler: &Compiler, options: &CudaOptions) -> Result<Self, EngineError> {
        let tuning = Tuning::Measured { cache: options.kernel_cache.clone() };
        Ok(Self { library: Matmul::new(compiler.device(), tuning)? })
    }

    /// `out = x * weight^T + bias`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(super) fn linear(
        &self,
        stream: &Stream,
        x: &CudaBuffer,
        layer: &Linear<'_, CudaBackend>,
        out: &CudaBuffer,
    ) -> Result<(), EngineError> {
        let product = product(x.address(), x.rows, x.element, layer.weight, out);
        let bias = layer.bias.map(|bias| bias.address());
        self.library.run(stream, &Product { bias, ..product })
    }

    /// `out = silu(gate) * up` in one, where there is a kernel for it. Says whether there was.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(super) fn gated(
        &self,
        _: &Stream,
        _: &CudaBuffer,
        _: &Linear<'_, CudaBackend>,
        _: &CudaBuffer,
    ) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Logits of `out.rows` rows of hidden states at `x`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(super) fn logits(
        &self,
        stream: &Stream,
        x: u64,
        element: ElementType,
        head: &CudaMatrix,
        out: &CudaBuffer,
    ) -> Result<(), EngineError> {
        self.library.run(stream, &product(x, out.rows, element, head, out))
    }
}

fn product(
    x: u64,
    rows: usize,
    element: ElementType,
    weight: &CudaMatrix,
    out: &CudaBuffer,
) -> Product {
    Product {
        x,
        weight: weight.address(),
        bias: None,
        out: out.address(),
        rows,
        outputs: weight.rows,
        inputs: weight.cols,
        x_stride: weight.cols,
        out_stride: out.cols,
        element,
        out_element: out.element,
    }
}
