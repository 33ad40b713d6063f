//! The side that has the pages: gathers them as they are filled, pushes them, and keeps them until
//! the receiver has verified the whole set.

mod connect;
mod gather;
mod outbox;
mod transfer;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use kv_cache::{BlockHandle, BlockHash, Fence, HandoffId, KvRegion};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::transfer::Transfer;
use crate::buffers::Buffers;
use crate::transport::{Target, Transports};
use crate::{IN_PLACE_BYTES, MESSAGE_BYTES, TransferError, TransferStats};

/// Pushes that may wait for a transfer's task before [`PageQueue::push`] waits: a few chunks of a
/// prompt, pushed layer by layer. Each is a range and some block handles, no pages.
const PUSHES_QUEUED_MAX: usize = 256;

/// The sending side of every hand-off of one worker.
///
/// A clone is another handle.
#[derive(Clone, Debug)]
pub struct Sender {
    config: SenderConfig,
    transports: Transports,
    buffers: Buffers,
    tasks: TaskTracker,
    /// Hand-offs begun.
    started: Arc<AtomicU64>,
    stats: Arc<TransferStats>,
}

/// A sender's limits.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// Payload of one message; at most [`MESSAGE_BYTES`], at least one page.
    pub message_bytes: usize,
    /// Pages of one message that says where they are, in bytes; at least one page.
    pub in_place_bytes: usize,
    /// Staging memory of all hand-offs together; the oldest one's first where it is short.
    pub buffer_bytes_max: usize,
    /// Payload that one hand-off may have gathered and not acknowledged, if the receiver lets it.
    pub window_bytes: u64,
    /// A receiver that owes an answer and says nothing for this long has lost the stream.
    pub stall: Duration,
    /// How long opening a stream may take.
    pub open_timeout: Duration,
    /// Streams tried over each transport, without progress in between, before the next one's turn.
    pub opens_max: u32,
    /// Times that missing pages are sent again.
    pub rounds_max: u32,
}

/// One hand-off to send.
pub struct SendJob {
    /// As the receiver named it.
    pub id: HandoffId,
    /// The receiver.
    pub target: Target,
    /// Transports that the receiver offers, best first.
    pub transports: Vec<String>,
    /// Logical blocks to send: from the first that the receiver doesn't hold to the sequence's end.
    pub blocks: Range<u32>,
    /// Tokens of the whole sequence.
    pub tokens: u32,
    /// Where the pages are.
    pub region: Arc<dyn KvRegion>,
    /// When to give up.
    pub deadline: Instant,
}

/// Pages whose contents are final once `fence` has passed, until the handles are dropped.
#[derive(Clone, Debug)]
pub struct FilledPages {
    /// Of these layers.
    pub layers: Range<u32>,
    /// Logical index of the first block.
    pub first_block: u32,
    /// The physical blocks, in logical order.
    pub blocks: Vec<BlockHandle>,
    /// Behind the writes.
    pub fence: Fence,
}

/// The way into a running hand-off. Dropping it cancels the hand-off.
#[derive(Debug)]
pub struct PageQueue {
    orders: mpsc::Sender<Order>,
    outcome: watch::Receiver<Option<Outcome>>,
    _cancel: DropGuard,
}

/// What a hand-off took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendReport {
    /// Name of the transport that it was finished over.
    pub transport: &'static str,
    /// Payload bytes, each page once.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u32,
    /// Pages that were sent more than once.
    pub resent_pages: u32,
    /// From the first push to the receiver's word that all is verified.
    pub duration: Duration,
}

/// What a transfer's task is told.
#[derive(Debug)]
enum Order {
    Push(FilledPages),
    Commit(BlockHash),
}

type Outcome = Result<SendReport, TransferError>;

// === impl Sender ===

impl Sender {
    /// A sender over `transports`.
    #[must_use]
    pub fn new(transports: Transports, mut config: SenderConfig) -> Self {
        config.message_bytes = config.message_bytes.min(MESSAGE_BYTES);
        Self {
            buffers: Buffers::new(config.message_bytes, config.buffer_bytes_max),
            config,
            transports,
            tasks: TaskTracker::new(),
            started: Arc::default(),
            stats: Arc::default(),
        }
    }

    /// Starts a hand-off: connects at once, and sends what is pushed.
    ///
    /// Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`TransferError::NoTransport`] if none of those offered reaches the target from here.
    pub fn start(&self, job: SendJob) -> Result<PageQueue, TransferError> {
        let mut transports = self.transports.choose(&job.transports, &job.target);
        let Some(first) = transports.first() else {
            return Err(TransferError::NoTransport { offered: job.transports });
        };
        let peer = first.peer(&job.target);
        let in_place = peer.is_some_and(|peer| peer.reaches(job.region.as_ref()));
        if in_place {
            // Digests of places and of bytes don't add up, and where memory is shared a process has
            // failed or it hasn't.
            transports.truncate(1);
        }
        let (orders, ordered) = mpsc::channel(PUSHES_QUEUED_MAX);
        let (outcome, watched) = watch::channel(None);
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let transfer = Transfer::new(self, job, transports, in_place, ordered);
        let stats = self.stats.clone();
        self.tasks.spawn(async move {
            let result = cancelled.run_until_cancelled(transfer.run()).await;
            let result = result.unwrap_or(Err(TransferError::Abandoned));
            stats.count_outcome(&result);
            // Nobody listens if the queue has been dropped.
            let _ = outcome.send(Some(result));
        });
        Ok(PageQueue { orders, outcome: watched, _cancel: cancel.drop_guard() })
    }

    /// The counters of this sender.
    #[must_use]
    pub fn stats(&self) -> Arc<TransferStats> {
        self.stats.clone()
    }

    /// Waits until every hand-off has ended. Cancel those that shouldn't be waited for by dropping
    /// their queues.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            message_bytes: MESSAGE_BYTES,
            in_place_bytes: IN_PLACE_BYTES,
            // 20 ms at 6 GB/s. What waits beyond that waits where the oldest comes first.
            buffer_bytes_max: 128 << 20,
            window_bytes: 16 << 20,
            stall: Duration::from_secs(5),
            open_timeout: Duration::from_secs(3),
            opens_max: 3,
            rounds_max: 8,
        }
    }
}

// === impl PageQueue ===

impl PageQueue {
    /// Hands pages over to be sent. Each page of the hand-off is pushed once, in any order.
    ///
    /// Waits only if hundreds of pushes are queued already. The pages are read later: the handles
    /// keep them.
    ///
    /// # Errors
    /// What ended the hand-off, if it has ended.
    pub async fn push(&self, pages: FilledPages) -> Result<(), TransferError> {
        match self.orders.send(Order::Push(pages)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failed().await),
        }
    }

    /// Says that every page has been pushed, and waits until the receiver has verified them all.
    ///
    /// - `context`: the name of the tokens whose KV they are.
    ///
    /// # Errors
    /// [`TransferError::Incomplete`] if that isn't so, else whatever ended the hand-off.
    pub async fn commit(self, context: BlockHash) -> Result<SendReport, TransferError> {
        // If the task has ended, its outcome says why.
        let _ = self.orders.send(Order::Commit(context)).await;
        self.outcome().await
    }

    /// Waits until the hand-off has failed, for whoever would rather stop computing then.
    pub async fn failed(&self) -> TransferError {
        match self.outcome().await {
            Err(error) => error,
            Ok(_) => TransferError::WrongPages("the hand-off is complete".into()),
        }
    }

    async fn outcome(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let result = outcome.wait_for(Option::is_some).await;
        let result = result.ok().and_then(|outcome| outcome.clone());
        result.unwrap_or_else(|| Err(TransferError::Internal("the sending task died".into())))
    }
}

impl std::fmt::Debug for SendJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendJob")
            .field("id", &self.id)
            .field("target", &self.target)
            .field("transports", &self.transports)
            .field("blocks", &self.blocks)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}
