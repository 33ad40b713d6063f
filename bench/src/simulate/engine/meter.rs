//! What an engine measures of its own steps, as a real one does.

use std::time::Duration;

use scheduler::cost::{OutputLengths, StepShape};

/// What each step leaves of those before it.
const KEPT: f64 = 0.9;

#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) output: OutputLengths,
    pub(super) decode_step_s: f64,
    /// All that were computed.
    pub(super) prompt_tokens: u64,
    /// Prompt tokens and seconds of the latest steps that had any.
    chunks: (f64, f64),
}

// === impl Meter ===

impl Meter {
    pub(super) fn step(&mut self, shape: &StepShape, took: Duration) {
        let (tokens, took_s) = (shape.prompt_tokens, took.as_secs_f64());
        self.prompt_tokens += u64::from(tokens);
        if tokens > 0 {
            let (before, before_s) = self.chunks;
            self.chunks = (before * KEPT + f64::from(tokens), before_s * KEPT + took_s);
        } else if self.decode_step_s == 0.0 {
            self.decode_step_s = took_s;
        } else {
            self.decode_step_s += (1.0 - KEPT) * (took_s - self.decode_step_s);
        }
    }

    /// Prompt tokens a second, 0 before any were seen.
    pub(super) fn prompt_tokens_per_s(&self) -> f64 {
        if self.chunks.1 > 0.0 { self.chunks.0 / self.chunks.1 } else { 0.0 }
    }
}
