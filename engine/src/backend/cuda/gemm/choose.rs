//! Products with weights: the kernels for few rows and for many where they win, the library elsewhere.

use super::Epilogue;
use super::library::{Matmul, Product};
use super::skinny::{SkinnyMatmul, SkinnyProduct, SkinnyShape};
use super::tiled::{TiledKind, TiledMatmul, TiledProduct, TiledShape};
use crate::backend::cuda::compile::Compiler;
use crate::backend::cuda::driver::address::Address;
use crate::backend::cuda::driver::device::Stream;
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::options::CudaOptions;
use crate::backend::cuda::weights::tensor::{CudaBuffer, CudaMatrix, CudaVector};
use crate::config::ModelConfig;
use crate::error::EngineError;

/// Everything that multiplies by weights.
pub(crate) struct Projections {
    few_rows: SkinnyMatmul,
    many_rows: TiledMatmul,
    library: Matmul,
}

/// One product with a weight.
#[derive(Clone, Copy)]
pub(crate) struct Projection<'a> {
    /// `[rows, inputs]`, of the weight's element type.
    pub(crate) x: Address,
    pub(crate) rows: usize,
    /// `[outputs, inputs]`.
    pub(crate) weight: &'a CudaMatrix,
    /// `[outputs]`.
    pub(crate) bias: Option<&'a CudaVector>,
    /// `[rows, outputs]`, or half as many outputs where they are gates and ups.
    pub(crate) out: &'a CudaBuffer,
    pub(crate) epilogue: Epilogue,
}

/// What does a product.
enum Way {
    FewRows(SkinnyShape),
    ManyRows(TiledShape),
    Library,
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

    /// `out = x * weight^T + bias`, ended as `product.epilogue` says; the one place that chooses what does
    /// it. False if nothing does so at once, which happens to gates alone.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub(crate) fn run(
        &self,
        stream: &Stream,
        product: &Projection<'_>,
    ) -> Result<bool, EngineError> {
        let Projection { x, rows, weight, bias, out, .. } = *product;
        let (weight_at, bias, out_at) =
            (weight.address(), bias.map(CudaVector::address), out.address());
        match self.way(product) {
            Some(Way::FewRows(shape)) => {
                let it = SkinnyProduct { x, weight: weight_at, bias, out: out_at, rows, shape };
                self.few_rows.run(stream, &it)?;
            }
            Some(Way::ManyRows(shape)) => {
                let it = TiledProduct { x, weight: weight_at, bias, out: out_at, rows, shape };
                self.many_rows.run(stream, &it)?;
            }
            Some(Way::Library) => {
                let it = Product {
                    x,
                    weight: weight_at,
                    bias,
                    out: out_at,
                    rows,
                    outputs: weight.rows,
                    inputs: weight.cols,
                    x_stride: weight.cols,
                    out_stride: out.cols,
                    element: weight.element,
                    out_element: out.element,
                };
                self.library.run(stream, &it)?;
            }
            None => return Ok(false),
        }
        Ok(true)
    }

    /// By shape and rows; every weight is dense.
    fn way(&self, product: &Projection<'_>) -> Option<Way> {
        let Projection { rows, weight, bias, epilogue, .. } = product;
        let is_gated = *epilogue == Epilogue::Gated;
        let outputs = if is_gated { weight.rows / 2 } else { weight.rows };
        let shape = SkinnyShape { outputs, inputs: weight.cols, kind: *epilogue };
        if is_gated && bias.is_some() {
            return None;
        }
        if self.few_rows.takes(*rows, &shape) {
            return Some(Way::FewRows(shape));
        }
        let many = tiled(&shape).filter(|shape| self.many_rows.takes(*rows, shape));
        many.map(Way::ManyRows).or((!is_gated).then_some(Way::Library))
    }
}

/// The products of a step.
fn shapes(config: &ModelConfig) -> Vec<SkinnyShape> {
    let heads = config.head_shape();
    let (hidden, inner) = (config.hidden_size as usize, config.intermediate_size as usize);
    let shape = |outputs, inputs, kind| SkinnyShape { outputs, inputs, kind };
    let mut shapes = vec![
        shape(heads.qkv_width(), hidden, Epilogue::Plain),
        shape(hidden, heads.q_width(), Epilogue::Plain),
        shape(hidden, inner, Epilogue::Plain),
        shape(inner, hidden, Epilogue::Gated),
        shape(config.vocab_size as usize, hidden, Epilogue::F32),
    ];
    // Where attention is as wide as the residual stream, two of them may be one.
    let mut seen = std::collections::HashSet::new();
    shapes.retain(|shape| seen.insert(*shape));
    shapes
}

/// The same for many rows; none for logits, of which there are few rows.
fn tiled(shape: &SkinnyShape) -> Option<TiledShape> {
    let SkinnyShape { outputs, inputs, kind } = *shape;
    let kind = match kind {
        Epilogue::Plain => TiledKind::Plain,
        Epilogue::Gated => TiledKind::Gated,
        Epilogue::F32 => return None,
    };
    Some(TiledShape { outputs, inputs, kind })
}
