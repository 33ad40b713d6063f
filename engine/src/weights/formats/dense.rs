//! Numbers of one floating-point type, row after row: what training leaves behind.

use super::{StoredMatrix, WeightFormat};
use crate::weights::Tensor;

/// What the tensor is called after its matrix.
pub(crate) const WEIGHT: &str = "weight";

/// See the module.
pub(crate) static FORMAT: WeightFormat = WeightFormat {
    name: "dense",
    is_told: |quantization| Ok(quantization.is_none()),
    read: |files, spec| {
        let tensor = files.tensor(&spec.tensor(WEIGHT), &[spec.rows, spec.cols])?;
        Ok(tensor.into())
    },
};

/// The matrix, if it is of this format.
pub(crate) fn of<'a>(matrix: &StoredMatrix<'a>) -> Option<Tensor<'a>> {
    let (_, stored) = matrix.parts.first().filter(|_| *matrix.format == FORMAT)?;
    stored.dense()
}

// === impl StoredMatrix ===

impl<'a> From<Tensor<'a>> for StoredMatrix<'a> {
    fn from(tensor: Tensor<'a>) -> Self {
        let Tensor { rows, cols, .. } = tensor;
        Self { format: &FORMAT, rows, cols, parts: vec![(WEIGHT, (&tensor).into())] }
    }
}
