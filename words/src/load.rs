//! How busy a worker is.

use std::time::Duration;

/// How busy a worker is: one numbered report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Grows by one with each report of an incarnation.
    pub sequence: u64,
    /// Sequences in the running batch.
    pub running: u32,
    /// Requests admitted or queued, not yet running.
    pub waiting: u32,
    /// Prompt tokens not yet computed, over running and waiting requests.
    pub queued_prefill_tokens: u64,
    /// Tokens of KV that running sequences read each step.
    pub context_tokens: u64,
    /// KV blocks nobody uses (cached ones can be evicted and count as free here).
    pub free_blocks: u32,
    /// KV blocks in all.
    pub total_blocks: u32,
    /// Measured prefill rate, tokens per second; 0 until measured.
    pub prefill_tokens_per_s: f64,
    /// Measured time of a decode step, seconds; 0 until measured.
    pub decode_step_s: f64,
    /// KV blocks held by no live sequence and no open hand-off: a leak unless 0.
    pub orphan_blocks: u32,
    /// KV blocks beside those in use that what was let in may need until it ends.
    pub promised_blocks: u32,
    /// KV blocks that requests in line will need.
    pub wanted_blocks: u32,
    /// Mean output of sequences that ended, tokens; 0 until measured.
    pub output_tokens: f64,
    /// Hand-offs that it sent.
    pub handoffs: HandoffTotals,
    /// Sequences let in to be generated here, those whose prompt is still to come included; not those whose prompt
    /// alone is computed here.
    pub generating: u32,
    /// Prompt tokens that it has computed since its life began.
    pub prefill_tokens: u64,
}

/// Hand-offs that a worker sent and its receivers verified, since its life began.
///
/// Totals, so that a report which is skipped or lost takes nothing with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoffTotals {
    /// How many.
    pub count: u64,
    /// Tokens of their prompts.
    pub tokens: u64,
    /// Microseconds that they added: from each prompt's first token until its receiver had verified the last page.
    pub added_us: u64,
}

// === impl HandoffTotals ===

impl HandoffTotals {
    /// One more, of a prompt of `tokens` tokens.
    pub fn add(&mut self, tokens: u32, added: Duration) {
        let added_us = u64::try_from(added.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.tokens += u64::from(tokens);
        self.added_us = self.added_us.saturating_add(added_us);
    }

    /// Those that came after `earlier`; `None` without any.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            count: self.count.checked_sub(earlier.count).filter(|count| *count > 0)?,
            tokens: self.tokens.checked_sub(earlier.tokens)?,
            added_us: self.added_us.checked_sub(earlier.added_us)?,
        })
    }

    /// Tokens of a prompt, on average; not a number of none.
    #[must_use]
    pub fn mean_tokens(self) -> f64 {
        self.tokens as f64 / self.count as f64
    }

    /// Seconds that each added, on average; not a number of none.
    #[must_use]
    pub fn mean_added_s(self) -> f64 {
        self.added_us as f64 * 1e-6 / self.count as f64
    }
}
