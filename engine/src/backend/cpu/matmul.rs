//! Matrix products, shared among threads by output columns.
//!
//! Our own tiles instead of the `gemm` crate, which was measured on the model of `benches/cpu.rs`
//! (one thread, EPYC 9004): its results depend on the shape of the call, so batch invariance means
//! calls of one fixed shape on weights widened tile by tile, and those took 21.9 ms of products for
//! a decode step and 145 ms for a prompt of 100 tokens. Here the whole steps, everything included,
//! take 5.4 ms and 79 ms (on two threads 3.6 ms and 46 ms; reading the weights alone takes 2.5 ms).

use super::crew::{Crew, TASKS_PER_THREAD};
use super::kernels::{self, SharedRows};
use super::simd::{Element, Isa};
use super::tensor::{CpuBuffer, CpuMatrix, with_elements};

/// Columns of a task are a multiple of this, so that tiles come out even.
const COLS_STEP: usize = 16;

/// Floats of input rows that stay in a core's second-level cache while weights pass by.
const ROWS_FLOATS_MAX: usize = 96 << 10;

/// `out[i] = x[i] * weight^T`.
///
/// Threads take columns, never parts of a sum, and every output is summed in the same order: the
/// result doesn't depend on how many rows or threads there are.
pub(super) fn matmul(isa: Isa, crew: &Crew, x: &[&[f32]], weight: &CpuMatrix, out: &mut CpuBuffer) {
    out.resize(x.len());
    with_elements!(&weight.elements, elements => run(isa, crew, x, elements, weight, out));
}

#[allow(unsafe_code)]
fn run<E: Element>(
    isa: Isa,
    crew: &Crew,
    x: &[&[f32]],
    elements: &[E],
    weight: &CpuMatrix,
    out: &mut CpuBuffer,
) {
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
