//! Products with dense weights: widened in registers, so that a decode step reads as few bytes as there are.

use super::columns::{self, Columns};
use super::{Product, Weights};
use crate::backend::cpu::rows;
use crate::backend::cpu::tensor::{CpuBuffer, Elements, widen, with_elements};
use crate::weights::formats::dense;
use crate::weights::{StoredMatrix, Tensor};

/// A matrix in its checkpoint's dtype.
#[derive(Debug)]
struct Dense {
    cols: usize,
    elements: Elements,
}

/// Stacks matrices, if all are dense. They nearly always have one dtype; where they don't, floats hold
/// them all.
pub(super) fn stack(parts: &[StoredMatrix<'_>]) -> Option<Box<dyn Weights>> {
    let parts = parts.iter().map(dense::of).collect::<Option<Vec<_>>>()?;
    Some(Box::new(Dense { cols: parts[0].cols, elements: elements(&parts) }))
}

fn elements(parts: &[Tensor<'_>]) -> Elements {
    let dtype = parts[0].dtype;
    if parts.iter().any(|part| part.dtype != dtype) {
        return Elements::F32(parts.iter().flat_map(widen).collect());
    }
    let count = parts.iter().map(Tensor::elements).sum();
    let mut elements = Elements::zeros(dtype, count);
    let mut rest = elements.bytes_mut();
    for part in parts {
        let bytes = part.bytes();
        rest.split_off_mut(..bytes.len()).expect("they were counted").copy_from_slice(&bytes);
    }
    elements
}

// === impl Dense ===

impl Weights for Dense {
    fn multiply(&self, product: &Product<'_>, out: &mut CpuBuffer) {
        let Self { cols, ref elements } = *self;
        with_elements!(elements, elements => {
            let multiply = |task: Columns<'_>| {
                let range = task.range();
                task.multiply(&elements[range.start * cols..range.end * cols]);
            };
            columns::share(product, cols, out, multiply);
        });
    }

    fn embed(&self, tokens: &[u32], out: &mut CpuBuffer) {
        with_elements!(&self.elements, table => rows::embed(tokens, table, out));
    }
}
