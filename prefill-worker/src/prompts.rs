//! What a prefill worker has besides its engine's sequences: prompts that wait, and those on their way out.

use std::sync::Arc;

use kv_cache::BlockId;
use parking_lot::Mutex;
use words::HandoffTotals;
use worker::{Entrance, KvHoldings};

use crate::outgoing::Outgoing;

/// Prompts for other workers, before and behind the engine.
pub(crate) struct Prompts {
    /// Where they wait for their turn.
    pub(crate) entrance: Entrance,
    /// Where computed ones wait for their receivers.
    pub(crate) outgoing: Arc<Outgoing>,
    /// Those that were verified.
    pub(crate) sent: Mutex<HandoffTotals>,
}

// === impl Prompts ===

impl KvHoldings for Prompts {
    fn held_blocks(&self) -> Vec<BlockId> {
        self.outgoing.held_blocks()
    }

    fn waiting(&self) -> u32 {
        self.outgoing.waiting() + self.entrance.counts().waiting
    }

    fn waiting_prefill_tokens(&self) -> u64 {
        self.entrance.counts().prefill_tokens
    }

    fn handoffs(&self) -> HandoffTotals {
        *self.sent.lock()
    }
}
