//! Products shared among threads by output columns, whatever format the weights are in.
//!
//! Our own tiles instead of the `gemm` crate, which was measured on the model of `benches/cpu.rs`
//! (one thread, EPYC 9004): its results depend on the shape of the call, so batch invariance means
//! calls of one fixed shape on weights widened tile by tile, and those took 21.9 ms of products for
//! a decode step and 145 ms for a prompt of 100 tokens. Here the whole steps, everything included,
//! take 5.4 ms and 79 ms (on two threads 3.6 ms and 46 ms; reading the weights alone takes 2.5 ms).
#![allow(unsafe_code)]

use std::ops::Range;

use super::Product;
use crate::backend::cpu::crew::TASKS_PER_THREAD;
use crate::backend::cpu::kernels::{self, SharedRows};
use crate::backend::cpu::simd::Element;
use crate::backend::cpu::tensor::CpuBuffer;

/// Columns of a task are a multiple of this, so that tiles come out even.
const COLS_STEP: usize = 16;

/// Floats of input rows that stay in a core's second-level cache while weights pass by.
const ROWS_FLOATS_MAX: usize = 96 << 10;

/// The columns of a product that one task computes: rows of the weights.
pub(super) struct Columns<'a> {
    product: &'a Product<'a>,
    /// Inputs.
    k: usize,
    range: Range<usize>,
    out: &'a SharedRows<'a>,
}

/// Has `task` multiply all columns of `out`, some at a time.
///
/// Threads take columns, never parts of a sum, and every output is summed in the same order: the
/// result doesn't depend on how many rows or threads there are.
///
/// - `k`: inputs.
pub(super) fn share(
    product: &Product<'_>,
    k: usize,
    out: &mut CpuBuffer,
    task: impl Fn(Columns<'_>) + Sync,
) {
    let Product { crew, x, .. } = *product;
    let cols = out.cols;
    let task_cols = cols.div_ceil(crew.threads() * TASKS_PER_THREAD).next_multiple_of(COLS_STEP);
    let out = &SharedRows::new(&mut out.data, cols);
    crew.share(cols.div_ceil(task_cols), x.len() * cols * k, |index| {
        let start = index * task_cols;
        task(Columns { product, k, range: start..cols.min(start + task_cols), out });
    });
}

// === impl Columns ===

impl Columns<'_> {
    /// Which they are.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// - `weights`: `[columns, k]`.
    pub(super) fn multiply<E: Element>(self, weights: &[E]) {
        let Product { isa, x, .. } = *self.product;
        let Range { start, end } = self.range;
        let task_rows = (ROWS_FLOATS_MAX / self.k).max(COLS_STEP);
        for (index, x) in x.chunks(task_rows).enumerate() {
            // SAFETY: `share` gives each column to one task, which comes here but once; all of them end
            // before it does, and it borrows `out`.
            let block = unsafe { self.out.block(index * task_rows, x.len(), start, end - start) };
            // SAFETY: as above.
            unsafe { kernels::products(isa, x, weights, self.k, block) };
        }
    }
}
