//! Products with weights, chosen by the format that these are in: a module and a row each.

mod columns;
mod dense;

use std::fmt::Debug;

use super::crew::Crew;
use super::simd::Isa;
use super::tensor::CpuBuffer;
use crate::error::EngineError;
use crate::weights::StoredMatrix;

/// Stacks matrices of one format, equally wide; `None` if they are of another.
type Stack = fn(&[StoredMatrix<'_>]) -> Option<Box<dyn Weights>>;

/// The formats that there are products for.
const FORMATS: &[Stack] = &[dense::stack];

/// A weight matrix in memory, `[rows, cols]`: rows are outputs.
#[derive(Debug)]
pub struct CpuMatrix {
    rows: usize,
    weights: Box<dyn Weights>,
}

/// What is multiplied by weights, and who does it.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) isa: Isa,
    pub(super) crew: &'a Crew,
    /// Rows, each as long as the weights' are.
    pub(super) x: &'a [&'a [f32]],
}

/// Weights of one format.
trait Weights: Debug + Send + Sync {
    /// `out[i] = x[i] * weight^T`; `out` has as many rows as `x`.
    fn multiply(&self, product: &Product<'_>, out: &mut CpuBuffer);

    /// `out[i] = weight[tokens[i]]`.
    fn embed(&self, tokens: &[u32], out: &mut CpuBuffer);
}

// === impl CpuMatrix ===

impl CpuMatrix {
    /// Stacks matrices of equal width.
    ///
    /// # Errors
    /// [`EngineError::Device`] for a format, or a mixture of some, that there are no products for.
    pub(super) fn stack(parts: &[StoredMatrix<'_>]) -> Result<Self, EngineError> {
        let cols = parts[0].cols;
        assert!(parts.iter().all(|part| part.cols == cols), "stacked matrices are equally wide");
        let weights = FORMATS.iter().find_map(|stack| stack(parts)).ok_or_else(|| {
            let formats: Vec<_> = parts.iter().map(StoredMatrix::format).collect();
            let reason = format!("no products on a CPU with weights that are {formats:?}");
            EngineError::Device(reason)
        })?;
        Ok(Self { rows: parts.iter().map(|part| part.rows).sum(), weights })
    }

    pub(super) fn multiply(&self, product: &Product<'_>, out: &mut CpuBuffer) {
        assert_eq!(out.cols, self.rows, "an output for each row of the weights");
        out.resize(product.x.len());
        self.weights.multiply(product, out);
    }

    /// `out` has as many rows as there are tokens.
    pub(super) fn embed(&self, tokens: &[u32], out: &mut CpuBuffer) {
        self.weights.embed(tokens, out);
    }
}
