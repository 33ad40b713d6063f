//! What all requests on a decode worker share.

use kv_cache::BlockId;
use kv_transfer::Receiver;
use kv_transfer::transport::in_process;
use words::HandoffTotals;
use worker::KvHoldings;

use crate::credit::Credits;
use crate::stats::HandoffStats;

/// The receiving side of every hand-off.
pub(crate) struct Inbound {
    pub(crate) receiver: Receiver,
    pub(crate) credits: Credits,
    pub(crate) stats: HandoffStats,
    /// Transports offered to prefill workers, best first.
    pub(crate) transports: Vec<String>,
    /// Keeps the receiver findable within this process.
    pub(crate) _local: Option<in_process::Registration>,
}

// === impl Inbound ===

impl KvHoldings for Inbound {
    fn held_blocks(&self) -> Vec<BlockId> {
        self.receiver.held_blocks()
    }

    fn waiting(&self) -> u32 {
        self.credits.waiting()
    }

    fn waiting_prefill_tokens(&self) -> u64 {
        // Their prompts are computed elsewhere.
        0
    }

    fn handoffs(&self) -> HandoffTotals {
        // Told by those who send them.
        HandoffTotals::default()
    }
}
