//! What steps took on machines that were measured: how the terms of a step's time are related.

use super::StepShape;
use super::factors::{TERMS, Terms};
use super::tiles::Tiles;

/// Rows between which a step's products are taken to grow evenly; beyond the last, as before it. Each tile of a GPU up to where
/// gaps end that somebody wants to be short: they are not alike, since two of them are computed as one.
const ROWS: [u32; 15] =
    [1, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 2048, 4096, 8192];

/// Parts that are none of the rows'.
const OTHERS: usize = 6;

/// A step's time by its parts, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepSeed {
    /// What products are computed in.
    pub(super) tiles: Tiles,
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
    /// Where there are prompts and rows that decode, whose attention is computed one after the other.
    both: f64,
}

// === impl StepSeed ===

impl StepSeed {
    /// Llama-3.1-8B's shape in bf16 on one H200: steps of up to 1,152 rows as they were served (`tests/h200.csv`), larger
    /// prompts alone (docs/perf/2026-11-30-house.md).
    pub const GPU: Self = Self {
        tiles: Tiles::new(64, 128),
        fixed: 4.05e-3,
        growth: [
            0.6e-3, 0.75e-3, 2.0e-3, 2.2e-3, 1.7e-3, 3.7e-3, 2.1e-3, 3.2e-3, 1.7e-3, 4.5e-3,
            1.5e-3, 11.5e-3, 38.1e-3, 76.2e-3,
        ],
        pair: 0.97e-9,
        context: 29e-9,
        row: 2e-6,
        prompt: 0.1e-3,
        both: 0.9e-3,
    };

    /// The demo model on two cores: nothing is hidden behind reading the weights.
    pub const CPU: Self = Self {
        pair: 0.1e-6,
        context: 0.2e-6,
        row: 0.1e-3,
        prompt: 0.1e-3,
        ..Self::flat(0.7e-3, 0.3e-3)
    };

    /// A machine on which each row takes the same time.
    ///
    /// - `fixed`: seconds of a step, beside its rows'.
    /// - `row`: seconds of each row.
    #[must_use]
    pub const fn flat(fixed: f64, row: f64) -> Self {
        let mut growth = [0.0; ROWS.len() - 1];
        let mut at = 0;
        while at < growth.len() {
            growth[at] = row * (ROWS[at + 1] - ROWS[at]) as f64;
            at += 1;
        }
        let fixed = fixed + row;
        let tiles = Tiles::NONE;
        Self { tiles, fixed, growth, pair: 0.0, context: 0.0, row: 0.0, prompt: 0.0, both: 0.0 }
    }

    /// The same, with products in tiles.
    ///
    /// - `few`: rows up to which each counts.
    /// - `tile`: beyond, as many cost the same as one of them; at least 1.
    #[must_use]
    pub const fn in_tiles(self, few: u32, tile: u32) -> Self {
        Self { tiles: Tiles::new(few, tile), ..self }
    }

    /// The parts of a step's time. Their sum is what this machine takes.
    pub(super) fn terms(&self, shape: &StepShape) -> Terms {
        let mut terms = [0.0; TERMS];
        terms[0] = self.fixed;
        terms[1] = self.pair * shape.prompt_pairs as f64;
        terms[2] = self.context * shape.decode_context as f64;
        terms[3] = self.row * f64::from(shape.decode_rows);
        terms[4] = self.prompt * f64::from(shape.prompts);
        terms[5] = if shape.prompts > 0 && shape.decode_rows > 0 { self.both } else { 0.0 };
        let rows = f64::from(self.tiles.paid(shape.rows()));
        for (at, growth) in self.growth.iter().enumerate() {
            let (from, to) = (f64::from(ROWS[at]), f64::from(ROWS[at + 1]));
            let passed = (rows - from) / (to - from);
            let most = if at + 1 == self.growth.len() { f64::INFINITY } else { 1.0 };
            terms[OTHERS + at] = growth * passed.clamp(0.0, most);
        }
        terms
    }
}

const _: () = assert!(TERMS == OTHERS + ROWS.len() - 1, "a term for each part");
