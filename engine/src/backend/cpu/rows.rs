//! Operations on single rows: embedding, norm, rotation, activation.

use super::CpuBackend;
use super::crew::Crew;
use super::kernels::{self, SharedRows};
use super::simd::{Element, Isa};
use super::tensor::CpuBuffer;
use crate::backend::rope::RopeRows;
use crate::backend::{Norm, PagedHeads};
use crate::config::HeadShape;

/// Rows per task of a shared loop over rows.
const TASK_ROWS: usize = 8;

/// What an exponential and its surroundings cost, in multiply-adds.
const EXP_COST: usize = 8;

/// Copies the tokens' rows of the table.
pub(super) fn embed<E: Element>(tokens: &[u32], table: &[E], out: &mut CpuBuffer) {
    let cols = out.cols;
    for (&token, out) in tokens.iter().zip(out.data.chunks_exact_mut(cols)) {
        let row = &table[token as usize * cols..][..cols];
        out.iter_mut().zip(row).for_each(|(out, x)| *out = x.to_f32());
    }
}

/// `x += delta`.
pub(super) fn add(x: &mut [f32], delta: &[f32]) {
    x.iter_mut().zip(delta).for_each(|(x, delta)| *x += delta);
}

/// `x = x / sqrt(mean(x^2) + eps) * weight`.
pub(super) fn norm(isa: Isa, x: &mut [f32], weight: &[f32], eps: f32) {
    let mean = kernels::sum_of_squares(isa, x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    x.iter_mut().zip(weight).for_each(|(x, weight)| *x = weight * (*x * scale));
}

/// `out = silu(gate) * up`, row by row.
pub(super) fn silu_mul(isa: Isa, crew: &Crew, gate_up: &CpuBuffer, out: &mut CpuBuffer) {
    let width = out.cols;
    let work = out.data.len() * EXP_COST;
    for_each_row(crew, work, out, |row, out| {
        let (gate, up) = gate_up.row(row).split_at(width);
        kernels::silu_mul(isa, gate, up, out);
    });
}

/// Norms and rotates the queries and keys of every row, in place.
pub(super) fn norm_and_rotate(
    isa: Isa,
    crew: &Crew,
    attention: &PagedHeads<'_, CpuBackend>,
    rope: &RopeRows,
    qkv: &mut CpuBuffer,
) {
    let HeadShape { heads, kv_heads, head_dim } = attention.shape;
    let work = qkv.rows() * (heads + kv_heads) * head_dim * EXP_COST;
    for_each_row(crew, work, qkv, |row, qkv| {
        let angles = row * rope.pairs..(row + 1) * rope.pairs;
        let (cos, sin) = (&rope.cos[angles.clone()], &rope.sin[angles]);
        for (index, head) in qkv.chunks_exact_mut(head_dim).take(heads + kv_heads).enumerate() {
            let norm = if index < heads { &attention.q_norm } else { &attention.k_norm };
            if let Some(Norm { weight, eps }) = norm {
                self::norm(isa, head, &weight.0, *eps);
            }
            rotate(head, cos, sin);
        }
    });
}

/// Rotates pairs `(i, i + head_dim / 2)`.
fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Calls `task` with every row of `out`, on all threads if `work` multiply-adds are worth it.
#[allow(unsafe_code)]
fn for_each_row(
    crew: &Crew,
    work: usize,
    out: &mut CpuBuffer,
    task: impl Fn(usize, &mut [f32]) + Sync,
) {
    let (rows, cols) = (out.rows(), out.cols);
    let shared = SharedRows::new(&mut out.data, cols);
    crew.share(rows.div_ceil(TASK_ROWS), work, |index| {
        for row in index * TASK_ROWS..((index + 1) * TASK_ROWS).min(rows) {
            // SAFETY: each row is in one task.
            task(row, unsafe { shared.row_mut(row) });
        }
    });
}
