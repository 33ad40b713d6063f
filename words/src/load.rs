//! How busy a worker is.

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
}
