//! Products with weights: the kernels for few rows and for many where they win, the library elsewhere.

use super::library::{Matmul, Product};
use super::skinny::{SkinnyKind, SkinnyMatmul, SkinnyProduct, SkinnyShape};
use super::tiled::{TiledKind, TiledMatmul, TiledProduct, TiledShape};
use crate::backend::Linear;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::compiler::Compiler;
use crate::backend::cuda::driver::device::Stream;
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::options::CudaOptions;
use crate::backend::cuda::tensor::{CudaBuffer, CudaMatrix, CudaVector};
use crate::config::ModelConfig;
use crate::error::EngineError;

/// Everything that multiplies by weights.
pub(crate) struct Projections {
    few_rows: SkinnyMatmul,
    many_rows: TiledMatmul,
    library: Matmul,
}

// === impl Projections ===

impl Projections {
    /// Compiles, or finds, the kernels for a model's products, and starts the library.
    ///
    /// # Errors
    /// As [`Compiler::module`] and [`Matmul::new`].
    pub(crate) fn new(
        compiler: &Compiler,
        element: ElementType,
        config: &ModelConfig,
        options: &CudaOptions,
    ) -> Result<Self, EngineError> {
        let shapes = if options.portable { Vec::new() } else { shapes(config) };
        let many: Vec<_> = shapes.iter().filter_map(tiled).collect();
        let rows_max = options.step_rows_max as usize;
        Ok(Self {
            few_rows: SkinnyMatmul::new(compiler, element, &shapes)?,
            many_rows: TiledMatmul::new(compiler, element, &many, rows_max)?,
            library: Matmul::new(compiler.device(), options.kernel_cache.as_deref())?,
        })
    }

    /// `out = x * weight^T + bias`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(crate) fn linear(
        &self,
        stream: &Stream,
        x: &CudaBuffer,
        layer: &Linear<'_, CudaBackend>,
        out: &CudaBuffer,
    ) -> Result<(), EngineError> {
        let bias = layer.bias.map(CudaVector::address);
        let weight = layer.weight;
        let shape = shape_of(weight, SkinnyKind::Plain);
        if self.few_rows.takes(x.rows, &shape) {
            let product = few_rows(x.address(), x.rows, weight, out, shape);
            return self.few_rows.run(stream, &SkinnyProduct { bias, ..product });
        }
        if let Some(shape) = tiled(&shape).filter(|it| self.many_rows.takes(x.rows, it)) {
            let product = many_rows(x, weight, out, shape);
            return self.many_rows.run(stream, &TiledProduct { bias, ..product });
        }
        let product = product(x.address(), x.rows, x.element, weight, out);
        self.library.run(stream, &Product { bias, ..product })
    }

    /// `out = silu(gate) * up` in one, where there is a kernel for it. Says whether there was.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(crate) fn gated(
        &self,
        stream: &Stream,
        x: &CudaBuffer,
        layer: &Linear<'_, CudaBackend>,
        out: &CudaBuffer,
    ) -> Result<bool, EngineError> {
        let whole = shape_of(layer.weight, SkinnyKind::Gated);
        let shape = SkinnyShape { outputs: whole.outputs / 2, ..whole };
        if layer.bias.is_some() {
            return Ok(false);
        }
        if self.few_rows.takes(x.rows, &shape) {
            let product = few_rows(x.address(), x.rows, layer.weight, out, shape);
            self.few_rows.run(stream, &product)?;
            return Ok(true);
        }
        let Some(shape) = tiled(&shape).filter(|it| self.many_rows.takes(x.rows, it)) else {
            return Ok(false);
        };
        self.many_rows.run(stream, &many_rows(x, layer.weight, out, shape))?;
        Ok(true)
    }

    /// Logits of `out.rows` rows of hidden states at `x`.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(crate) fn logits(
        &self,
        stream: &Stream,
        x: Address,
        element: ElementType,
        head: &CudaMatrix,
        out: &CudaBuffer,
    ) -> Result<(), EngineError> {
        let shape = shape_of(head, SkinnyKind::F32);
        if self.few_rows.takes(out.rows, &shape) {
            return self.few_rows.run(stream, &few_rows(x, out.rows, head, out, shape));
        }
        self.library.run(stream, &product(x, out.rows, element, head, out))
    }
}

/// The products of a step.
fn shapes(config: &ModelConfig) -> Vec<SkinnyShape> {
    let heads = config.head_shape();
    let (hidden, inner) = (config.hidden_size as usize, config.intermediate_size as usize);
    let shape = |outputs, inputs, kind| SkinnyShape { outputs, inputs, kind };
    let mut shapes = vec![
        shape(heads.qkv_width(), hidden, SkinnyKind::Plain),
        shape(hidden, heads.q_width(), SkinnyKind::Plain),
        shape(hidden, inner, SkinnyKind::Plain),
        shape(inner, hidden, SkinnyKind::Gated),
        shape(config.vocab_size as usize, hidden, SkinnyKind::F32),
    ];
    // Where attention is as wide as the residual stream, two of them may be one.
    let mut seen = std::collections::HashSet::new();
    shapes.retain(|shape| seen.insert(*shape));
    shapes
}

fn shape_of(weight: &CudaMatrix, kind: SkinnyKind) -> SkinnyShape {
    SkinnyShape { outputs: weight.rows, inputs: weight.cols, kind }
}

/// The same for many rows; none for logits, of which there are few rows.
fn tiled(shape: &SkinnyShape) -> Option<TiledShape> {
    let SkinnyShape { outputs, inputs, kind } = *shape;
    let kind = match kind {
        SkinnyKind::Plain => TiledKind::Plain,
        SkinnyKind::Gated => TiledKind::Gated,
        SkinnyKind::F32 => return None,
    };
    Some(TiledShape { outputs, inputs, kind })
}

fn few_rows(
    x: Address,
    rows: usize,
    weight: &CudaMatrix,
    out: &CudaBuffer,
    shape: SkinnyShape,
) -> SkinnyProduct {
    SkinnyProduct { x, weight: weight.address(), bias: None, out: out.address(), rows, shape }
}

fn many_rows(
    x: &CudaBuffer,
    weight: &CudaMatrix,
    out: &CudaBuffer,
    shape: TiledShape,
) -> TiledProduct {
    let (x, rows) = (x.address(), x.rows);
    TiledProduct { x, weight: weight.address(), bias: None, out: out.address(), rows, shape }
}

fn product(
    x: Address,
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
