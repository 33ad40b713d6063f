//! What steps took on machines that were measured: how the terms of a step's time are related.

use super::StepShape;
use super::factors::{TERMS, Terms};

/// Rows between which a step's products are taken to grow evenly; beyond the last, as before it.
const ROWS: [u32; 9] = [1, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

/// A step's time by its parts, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSeed {
    /// A step of one row.
    fixed: f64,
    /// By how much it grows from each number of [`ROWS`] to the next.
    growth: [f64; ROWS.len() - 1],
    /// For each pair of a prompt's tokens.
    pair: f64,
    /// For each token of a decoding row's context.
    context: f64,
    /// For each decoding row, beside its part in the products.
    row: f64,
    /// For each prompt.
    prompt: f64,
}

// === impl StepSeed ===

impl StepSeed {
    /// Llama-3.1-8B's shape in bf16 on one H200 (docs/perf/2026-11-30-house.md): decode of 1 to 256 rows at contexts of
    /// 1,120 tokens, prompts of 512 to 32,768.
    pub const GPU: Self = Self {
        fixed: 3.95e-3,
        growth: [0.45e-3, 0.6e-3, 1.5e-3, 4.2e-3, 9.2e-3, 19.0e-3, 38.1e-3, 76.2e-3],
        pair: 0.97e-9,
        context: 29e-9,
        row: 3e-6,
        prompt: 20e-6,
    };

    /// The demo model on two cores: nothing is hidden behind reading the weights.
    pub const CPU: Self = Self {
        fixed: 1.0e-3,
        growth: [19e-3, 19e-3, 38e-3, 77e-3, 154e-3, 307e-3, 614e-3, 1229e-3],
        pair: 0.1e-6,
        context: 0.2e-6,
        row: 0.1e-3,
        prompt: 0.1e-3,
    };

    /// A machine on which each row takes the same time.
    ///
    /// - `fixed`: seconds of a step, beside its rows'.
    /// - `row`: seconds of each row.
    #[must_use]
    pub fn flat(fixed: f64, row: f64) -> Self {
        let growth = std::array::from_fn(|at| row * f64::from(ROWS[at + 1] - ROWS[at]));
        Self { fixed: fixed + row, growth, pair: 0.0, context: 0.0, row: 0.0, prompt: 0.0 }
    }

    /// The parts of a step's time. Their sum is what this machine takes.
    pub(super) fn terms(&self, shape: &StepShape) -> Terms {
        let mut terms = [0.0; TERMS];
        terms[0] = self.fixed;
        terms[1] = self.pair * shape.prompt_pairs as f64;
        terms[2] = self.context * shape.decode_context as f64;
        terms[3] = self.row * f64::from(shape.decode_rows);
        terms[4] = self.prompt * f64::from(shape.prompts);
        let rows = f64::from(shape.rows());
        for (at, growth) in self.growth.iter().enumerate() {
            let (from, to) = (f64::from(ROWS[at]), f64::from(ROWS[at + 1]));
            let passed = (rows - from) / (to - from);
            let most = if at + 1 == self.growth.len() { f64::INFINITY } else { 1.0 };
            terms[5 + at] = growth * passed.clamp(0.0, most);
        }
        terms
    }
}

const _: () = assert!(TERMS == 5 + ROWS.len() - 1, "a term for each part");
