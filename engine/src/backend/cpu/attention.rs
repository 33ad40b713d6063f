//! Paged causal attention over mixed prefill and decode rows.
//!
//! A row's scores are computed against its sequence's keys in order of position, normalized by one
//! softmax over all of them, and its values summed in order of position. Nothing depends on which
//! other rows share a tile, so a row's result is the same in a whole prompt, a chunk or a decode
//! step.

use std::ops::Range;

use super::crew::Crew;
use super::kernels::{self, OutBlock, SharedRows};
use super::kv::PageShape;
use super::simd::{Element, Isa};
use super::tensor::CpuBuffer;
use crate::batch::SequenceRows;
use crate::config::HeadShape;

/// Rows of one task: enough to read each key once for several queries, few enough to share a prompt
/// among threads.
const TASK_ROWS: usize = 16;

/// Queries scored together.
const TILE: usize = 12;

/// One layer's attention over one step.
pub(super) struct PagedAttention<'a> {
    pub(super) isa: Isa,
    pub(super) crew: &'a Crew,
    pub(super) shape: HeadShape,
    pub(super) window: Option<u32>,
    pub(super) pages: PageShape,
    pub(super) sequences: &'a [SequenceRows<'a>],
    pub(super) positions: &'a [u32],
}

/// Some rows of one sequence, for one key/value head.
struct Task<'a> {
    sequence: &'a SequenceRows<'a>,
    rows: Range<usize>,
    kv_head: usize,
}

/// One query of a tile: where it comes from, and what it sees.
#[derive(Clone)]
struct Query {
    row: usize,
    head: usize,
    /// Positions it sees.
    sees: Range<usize>,
}

// === impl PagedAttention ===

impl PagedAttention<'_> {
    /// - `qkv`: `[rows, qkv width]`.
    /// - `layer`: the layer's pages.
    /// - `out`: `[rows, q width]`.
    pub(super) fn run<E: Element>(&self, qkv: &CpuBuffer, layer: &[E], out: &mut CpuBuffer) {
        let tasks = self.tasks();
        let seen: usize = self.positions.iter().map(|&p| self.sees(p).len()).sum();
        let work = 2 * seen * self.shape.q_width();
        let shared = SharedRows::new(&mut out.data, out.cols);
        self.crew
            .share(tasks.len(), work, |index| self.run_task(&tasks[index], qkv, layer, &shared));
    }

    fn tasks(&self) -> Vec<Task<'_>> {
        let mut tasks = Vec::new();
        for sequence in self.sequences {
            for start in sequence.rows.clone().step_by(TASK_ROWS) {
                let rows = start..(start + TASK_ROWS).min(sequence.rows.end);
                let heads = 0..self.shape.kv_heads;
                tasks.extend(heads.map(|kv_head| Task { sequence, rows: rows.clone(), kv_head }));
            }
        }
        tasks
    }

    /// The positions a row at `position` sees.
    fn sees(&self, position: u32) -> Range<usize> {
        let end = position as usize + 1;
        self.window.map_or(0, |window| end.saturating_sub(window as usize))..end
    }

    fn run_task<E: Element>(
        &self,
        task: &Task<'_>,
        qkv: &CpuBuffer,
        layer: &[E],
        out: &SharedRows<'_>,
    ) {
        let group = self.shape.group();
        let heads = task.kv_head * group..(task.kv_head + 1) * group;
        let queries: Vec<Query> = task
            .rows
            .clone()
            .flat_map(|row| {
                let sees = self.sees(self.positions[row]);
                heads.clone().map(move |head| Query { row, head, sees: sees.clone() })
            })
            .collect();
        for tile in queries.chunks(TILE) {
            self.run_tile(task, tile, qkv, layer, out);
        }
    }

    #[allow(unsafe_code)]
    fn run_tile<E: Element>(
        &self,
        task: &Task<'_>,
        tile: &[Query],
        qkv: &CpuBuffer,
        layer: &[E],
        out: &SharedRows<'_>,
    ) {
        let dim = self.shape.head_dim;
        let seen = span(tile);
        let queries: Vec<&[f32]> =
            tile.iter().map(|query| &qkv.row(query.row)[query.head * dim..][..dim]).collect();
        let mut scores = vec![0.0; tile.len() * seen.len()];
        self.score(task, &queries, &seen, layer, &mut scores);
        let sums = self.normalize(tile, &seen, &mut scores);
        let mut attended = vec![0.0; tile.len() * dim];
        self.add_values(task, &seen, layer, &scores, &mut attended);
        for ((query, sum), attended) in tile.iter().zip(sums).zip(attended.chunks_exact(dim)) {
            // SAFETY: a row's head belongs to one tile of one task.
            unsafe {
                let place = out.block(query.row, 1, query.head * dim, dim);
                place.write_row(attended.iter().map(|x| x / sum));
            }
        }
    }

    /// `scores[q][j] = query q . key at seen.start + j`.
    #[allow(unsafe_code)]
    fn score<E: Element>(
        &self,
        task: &Task<'_>,
        queries: &[&[f32]],
        seen: &Range<usize>,
        layer: &[E],
        scores: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        let all = OutBlock::new(scores, queries.len(), seen.len());
        for run in self.runs(task, seen) {
            let start = self.pages.keys(run.block, task.kv_head) + run.offset * dim;
            let keys = &layer[start..][..run.count * dim];
            let columns = all.columns(run.position - seen.start, run.count);
            // SAFETY: `scores` is borrowed for this function and nobody else writes it.
            unsafe { kernels::products(self.isa, queries, keys, dim, columns) };
        }
    }

    /// Scores to unnormalized probabilities, 0 where a query doesn't see; returns their sums.
    fn normalize(&self, tile: &[Query], seen: &Range<usize>, scores: &mut [f32]) -> Vec<f32> {
        let scale = 1.0 / (self.shape.head_dim as f32).sqrt();
        tile.iter()
            .zip(scores.chunks_exact_mut(seen.len()))
            .map(|(query, scores)| {
                let own = query.sees.start - seen.start..query.sees.end - seen.start;
                scores[..own.start].fill(0.0);
                scores[own.end..].fill(0.0);
                kernels::exp_scores(self.isa, &mut scores[own], scale)
            })
            .collect()
    }

    /// Adding 0 times a value changes nothing, so a tile's queries may share what they see.
    fn add_values<E: Element>(
        &self,
        task: &Task<'_>,
        seen: &Range<usize>,
        layer: &[E],
        scores: &[f32],
        attended: &mut [f32],
    ) {
        let dim = self.shape.head_dim;
        for run in self.runs(task, seen) {
            let start = self.pages.values(run.block, task.kv_head) + run.offset * dim;
            let values = &layer[start..][..run.count * dim];
            let from = run.position - seen.start;
            let weights: Vec<&[f32]> =
                scores.chunks_exact(seen.len()).map(|row| &row[from..from + run.count]).collect();
            kernels::add_weighted(self.isa, &weights, values, dim, attended);
        }
    }

    /// The seen positions, block by block.
    fn runs<'t>(
        &self,
        task: &'t Task<'_>,
        seen: &Range<usize>,
    ) -> impl Iterator<Item = Run> + use<'t> {
        let (block_tokens, seen) = (self.pages.block_tokens(), seen.clone());
        let blocks = seen.start / block_tokens..seen.end.div_ceil(block_tokens);
        blocks.map(move |logical| {
            let position = (logical * block_tokens).max(seen.start);
            let end = ((logical + 1) * block_tokens).min(seen.end);
            Run {
                block: task.sequence.blocks[logical],
                offset: position - logical * block_tokens,
                position,
                count: end - position,
            }
        })
    }
}

/// Consecutive positions in one block.
struct Run {
    block: kv_cache::BlockId,
    /// First slot in the block.
    offset: usize,
    /// First position in the sequence.
    position: usize,
    count: usize,
}

fn span(tile: &[Query]) -> Range<usize> {
    let start = tile.iter().map(|query| query.sees.start).min().expect("a tile has a query");
    let end = tile.iter().map(|query| query.sees.end).max().expect("a tile has a query");
    start..end
}
