//! How much is measured.

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
    /// Prefill: prompts at once, and their tokens.
    pub(super) batched: (usize, usize),
    /// Offline: requests, tokens in, tokens out.
    pub(super) offline: (usize, usize, u32),
    /// Whether the offline row is measured.
    pub(super) has_offline: bool,
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
                batched: (32, 2048),
                offline: (512, 1024, 128),
                has_offline: true,
            },
            (true, true) => Self {
                pairs: 0,
                prompts: &[(512, 3), (2048, 3), (8192, 2), (32_768, 1)],
                has_offline: false,
                ..Self::new(true, false)
            },
            (false, _) => Self {
                batches: &[1, 4],
                decode_prompt: 24,
                decode_tokens: (4, 12),
                pairs: usize::from(!quick),
                prompts: &[(64, 2), (256, 2)],
                batched: (4, 64),
                offline: (8, 32, 8),
                has_offline: true,
            },
        }
    }
}
