//! How much is measured.

use std::time::Duration;

/// The sizes of all rows: those of the anchors on a GPU, small ones elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// Decode: sequences at once.
    pub(super) batches: &'static [usize],
    /// Decode: tokens of a prompt.
    pub(super) decode_prompt: usize,
    /// Decode: tokens of the shorter and of the longer run.
    pub(super) decode_tokens: (u32, u32),
    /// Decode: pairs of runs for a batch; 0 takes the steady part of one long run.
    pub(super) pairs: usize,
    /// Prefill: tokens of single prompts, with how often each is measured.
    pub(super) prompts: &'static [(usize, usize)],
    /// Prefill: before each of them. One request meets a server that is idle; a card that has computed for
    /// seconds is at its power limit and runs at a lower clock.
    pub(super) rest: Duration,
    /// Prefill: for how long prompts are computed without rest, one after another.
    pub(super) in_a_row: Duration,
    /// Prefill: prompts at once, and their tokens.
    pub(super) batched: (usize, usize),
    /// Offline: requests, tokens in, tokens out.
    pub(super) offline: (usize, usize, u32),
    /// Whether the offline row is measured.
    pub(super) has_offline: bool,
    /// Mixed: sequences that decode, and tokens of their prompts.
    pub(super) decoding: (usize, usize),
    /// Mixed: tokens of an arriving prompt, and time between two.
    pub(super) arriving: (usize, Duration),
    /// Mixed: for how long.
    pub(super) mixed_for: Duration,
    /// Products: rows.
    pub(super) product_rows: &'static [usize],
}

// === impl Sizes ===

impl Sizes {
    pub(super) fn new(is_gpu: bool, quick: bool) -> Self {
        match (is_gpu, quick) {
            (true, false) => Self {
                batches: &[1, 8, 32, 64, 128, 256],
                // The mean context of steps 32 to 160 is 96 more: 1,120.
                decode_prompt: 1024,
                decode_tokens: (32, 160),
                pairs: 1,
                prompts: &[(512, 9), (2048, 7), (8192, 5), (32_768, 3)],
                rest: Duration::from_secs(1),
                in_a_row: Duration::from_secs(10),
                batched: (32, 2048),
                offline: (512, 1024, 128),
                has_offline: true,
                decoding: (32, 1024),
                arriving: (2048, Duration::from_millis(200)),
                mixed_for: Duration::from_secs(6),
                product_rows: &[1, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 8192],
            },
            (true, true) => Self {
                pairs: 0,
                prompts: &[(512, 3), (2048, 3), (8192, 3), (32_768, 2)],
                in_a_row: Duration::from_secs(3),
                has_offline: false,
                mixed_for: Duration::from_secs(3),
                product_rows: &[1, 8, 64, 128, 256, 2048],
                ..Self::new(true, false)
            },
            (false, _) => Self {
                batches: &[1, 4],
                decode_prompt: 24,
                decode_tokens: (4, 52),
                pairs: usize::from(!quick),
                prompts: &[(64, 2), (256, 2)],
                rest: Duration::ZERO,
                in_a_row: Duration::from_millis(200),
                batched: (4, 64),
                offline: (8, 32, 8),
                has_offline: true,
                decoding: (4, 16),
                arriving: (64, Duration::from_millis(20)),
                mixed_for: Duration::from_millis(200),
                product_rows: &[],
            },
        }
    }
}
