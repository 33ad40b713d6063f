//! The side that has room: promises it, checks what comes, gives the finished table out.
//!
//! ```text
//! expect -> open ----> verified -> taken (a tombstone until the deadline, so that a sender whose
//!             |           |               last answer was lost can ask again)
//!             +-----------+--> closed: abandoned, expired, refused or broken
//! ```
//!
//! A hand-off that closes while a page is being written keeps its blocks until the write has ended.
//! That, and that a stream which takes over waits for the writes of the one before it, is all there
//! is to "no writer can reach a freed page".

mod entry;
mod pending;
mod serve;
mod table;
mod write;

use std::sync::Arc;
use std::time::Instant;

use futures::stream::BoxStream;
use kv_cache::{
    BlockHash, BlockId, BlockPool, BlockTable, HandoffId, KvRegion, PageSpan, Reservation,
};

use self::entry::{Entry, Receiving, Sequence};
use self::table::Table;
use crate::message::{Open, Push, Reply};
use crate::transport::Cut;
use crate::{Coverage, Digest, TransferError, TransferStats};

pub use pending::PendingHandoff;

/// The receiving side of every hand-off of one worker.
///
/// A clone is another handle. Nothing runs in it by itself: streams are driven by whoever serves
/// them, and a hand-off ends with its [`PendingHandoff`] at the latest.
#[derive(Clone)]
pub struct Receiver(Arc<Destination>);

/// A receiver's identity and limits.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// The worker's life; streams meant for another are refused.
    pub incarnation: u64,
    /// Hand-offs that may be open at once. Each costs some 10 KiB beside its blocks.
    pub handoffs_max: usize,
    /// Payload bytes that one stream may have under way.
    pub window_bytes: u64,
}

/// What a worker is about to receive.
#[derive(Debug)]
pub struct Expected {
    /// Credits for the blocks that will come; what is left over goes back to the pool, so split
    /// off what the sequence needs later.
    pub reservation: Reservation,
    /// The sequence's leading blocks, already here, all full. They are not sent.
    pub held: BlockTable,
    /// Tokens of the whole sequence, those in `held` included.
    pub tokens: u32,
    /// Their name, which has to be that of the tokens whose KV was computed.
    pub context: BlockHash,
    /// When the blocks go back whatever happens.
    pub deadline: Instant,
}

struct Destination {
    config: ReceiverConfig,
    pool: BlockPool,
    region: Arc<dyn KvRegion>,
    table: Table,
    stats: Arc<TransferStats>,
}

// === impl Receiver ===

impl Receiver {
    /// A receiver into `region`, whose blocks are `pool`'s. Pages that don't fit its layout are refused.
    ///
    /// # Panics
    /// If the region's and the pool's blocks have different sizes.
    #[must_use]
    pub fn new(pool: BlockPool, region: Arc<dyn KvRegion>, config: ReceiverConfig) -> Self {
        assert_eq!(pool.block_tokens(), region.layout().block_tokens(), "one pool, one region");
        let table = Table::new(config.handoffs_max);
        let stats = Arc::new(TransferStats::default());
        Self(Arc::new(Destination { config, pool, region, table, stats }))
    }

    /// Opens a hand-off. From here on, whoever knows its id may write until it ends.
    ///
    /// # Errors
    /// [`TransferError::WrongExpectation`] if what is held isn't a full prefix of the sequence or
    /// the credits don't suffice for the rest; [`TransferError::TooManyHandoffs`].
    pub fn expect(&self, expected: Expected) -> Result<PendingHandoff, TransferError> {
        let span = self.expected_span(&expected)?;
        let id = HandoffId(uuid::Uuid::new_v4().into_bytes());
        let receiving = Receiving {
            credit: expected.reservation,
            held: expected.held,
            bound: vec![None; span.blocks.len()],
            coverage: Coverage::new(&span),
            digest: Digest::default(),
        };
        let deadline = expected.deadline.into();
        let stats = self.0.stats.clone();
        let sequence = Sequence { span, tokens: expected.tokens, context: expected.context };
        let entry = Arc::new(Entry::new(id, sequence, deadline, receiving, stats));
        self.0.table.insert(entry.clone())?;
        Ok(PendingHandoff::new(entry, self.0.clone()))
    }

    /// The span of pages that have to come.
    fn expected_span(&self, expected: &Expected) -> Result<PageSpan, TransferError> {
        let layout = self.0.region.layout();
        let (held, tokens) = (&expected.held, expected.tokens as usize);
        let (begin, end) = (held.blocks().len(), layout.blocks_for(tokens));
        let credits = expected.reservation.remaining() as usize;
        if held.tokens() != held.capacity_tokens() || begin > end {
            let what = format!("{} tokens held in {begin} blocks of {end}", held.tokens());
            return Err(TransferError::WrongExpectation(what));
        }
        if end - begin > credits {
            let what = format!("{} blocks to come, {credits} credits", end - begin);
            return Err(TransferError::WrongExpectation(what));
        }
        Ok(PageSpan { layers: 0..layout.layers(), blocks: begin as u32..end as u32 })
    }

    /// Serves one stream of a hand-off: what each transport's receiving end calls.
    ///
    /// The first reply is [`Reply::Opened`] or [`Reply::Rejected`]. Ends after the last reply, or
    /// when `pushes` ends; dropping it ends the stream and leaves the hand-off open for another.
    pub fn serve(
        &self,
        open: Open,
        pushes: BoxStream<'static, Result<Push, Cut>>,
    ) -> BoxStream<'static, Reply> {
        serve::serve(self.0.clone(), open, pushes)
    }

    /// The memory it writes to.
    #[must_use]
    pub fn region(&self) -> Arc<dyn KvRegion> {
        self.0.region.clone()
    }

    /// Every block that an open hand-off or a write in progress holds, those of the held prefixes
    /// included: the receiver's part of the live set for [`BlockPool::orphans`].
    #[must_use]
    pub fn held_blocks(&self) -> Vec<BlockId> {
        self.0.table.held_blocks()
    }

    /// Hand-offs that hold blocks.
    #[must_use]
    pub fn open_handoffs(&self) -> usize {
        self.0.table.live()
    }

    /// The counters of this receiver.
    #[must_use]
    pub fn stats(&self) -> Arc<TransferStats> {
        self.0.stats.clone()
    }

    /// Payload of a stream that may have come and not be under way to the region: what a window and a
    /// message sent twice allow.
    pub(crate) fn early_bytes_max(&self) -> u64 {
        2 * self.0.config.window_bytes + self.message_bytes_max() as u64
    }

    /// Bytes of the largest message that makes sense here, for a transport's limit.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        // The payload, the digests (at least a hundred times smaller), the frame.
        crate::MESSAGE_BYTES.max(self.0.region.layout().page_bytes()) + (128 << 10)
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            incarnation: 0,
            handoffs_max: 4096,
            // 2.7 ms at 6 GB/s: more than a message takes to be read, carried and written.
            window_bytes: 16 << 20,
        }
    }
}
