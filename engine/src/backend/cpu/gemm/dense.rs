//! Products with dense weights, shared among threads by output columns.
//!
//! Our own tiles instead of the `gemm` crate, which was measured on the model of `benches/cpu.rs`
//! (one thread, EPYC 9004): its results depend on the shape of the call, so batch invariance means
//! calls of one fixed shape on weights widened tile by tile, and those took 21.9 ms of products for
//! a decode step and 145 ms for a prompt of 100 tokens. Here the whole steps, everything included,
//! take 5.4 ms and 79 ms (on two threads 3.6 ms and 46 ms; reading the weights alone takes 2.5 ms).

use super::{Product, Weights};
use crate::backend::cpu::crew::TASKS_PER_THREAD;
use crate::backend::cpu::kernels::{self, SharedRows};
use crate::backend::cpu::rows;
use crate::backend::cpu::simd::Element;
use crate::backend::cpu::tensor::{CpuBuffer, Elements, widen, with_elements};
use crate::weights::formats::dense;
use crate::weights::{StoredMatrix, Tensor};

/// Columns of a task are a multiple of this, so that tiles come out even.
const COLS_STEP: usize = 16;

/// Floats of input rows that stay in a core's second-level cache while weights pass by.
const ROWS_FLOATS_MAX: usize = 96 << 10;

/// A matrix in its checkpoint's dtype: widening happens in registers, so that a decode step reads as
/// few bytes as there are.
#[derive(Debug)]
struct Dense {
    rows: usize,
    cols: usize,
    elements: Elements,
}

/// Stacks matrices, if all are dense. They nearly always have one dtype; where they don't, floats hold
/// them all.
pub(super) fn stack(parts: &[StoredMatrix<'_>]) -> Option<Box<dyn Weights>> {
    let parts = parts.iter().map(dense::of).collect::<Option<Vec<_>>>()?;
    let (rows, cols) = (parts.iter().map(|part| part.rows).sum(), parts[0].cols);
    Some(Box::new(Dense { rows, cols, elements: elements(&parts, rows * cols) }))
}

fn elements(parts: &[Tensor<'_>], count: usize) -> Elements {
    let dtype = parts[0].dtype;
    if parts.iter().any(|part| part.dtype != dtype) {
        return Elements::F32(parts.iter().flat_map(widen).collect());
    }
    let mut elements = Elements::zeros(dtype, count);
    let mut rest = elements.bytes_mut();
    for part in parts {
        let bytes = part.bytes();
        rest.split_off_mut(..bytes.len()).expect("counted by the caller").copy_from_slice(&bytes);
    }
    elements
}

// === impl Dense ===

impl Weights for Dense {
    /// Threads take columns, never parts of a sum, and every output is summed in the same order: the
    /// result doesn't depend on how many rows or threads there are.
    fn multiply(&self, product: &Product<'_>, out: &mut CpuBuffer) {
        with_elements!(&self.elements, elements => run(product, elements, self, out));
    }

    fn embed(&self, tokens: &[u32], out: &mut CpuBuffer) {
        with_elements!(&self.elements, table => rows::embed(tokens, table, out));
    }
}

#[allow(unsafe_code)]
fn run<E: Element>(product: &Product<'_>, elements: &[E], weight: &Dense, out: &mut CpuBuffer) {
    let Product { isa, crew, x } = *product;
    let (cols, k) = (weight.rows, weight.cols);
    let task_cols = cols.div_ceil(crew.threads() * TASKS_PER_THREAD).next_multiple_of(COLS_STEP);
    let task_rows = (ROWS_FLOATS_MAX / k).max(COLS_STEP);
    let shared = SharedRows::new(&mut out.data, out.cols);
    crew.share(cols.div_ceil(task_cols), x.len() * cols * k, |task| {
        let start = task * task_cols;
        let count = task_cols.min(cols - start);
        let elements = &elements[start * k..][..count * k];
        for (index, x) in x.chunks(task_rows).enumerate() {
            // SAFETY: tasks have disjoint columns.
            let block = unsafe { shared.block(index * task_rows, x.len(), start, count) };
            // SAFETY: as above; `out` is borrowed until all tasks have ended.
            unsafe { kernels::products(isa, x, elements, k, block) };
        }
    });
}
