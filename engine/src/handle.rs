//! The engine as others hold it: work in, events out, numbers at any time.

mod ends;
mod events;
mod live;
mod outbox;
mod queue;
mod submission;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kv_cache::{
    BlockHash, BlockId, BlockPool, BlockTable, ChainHasher, KvLayout, KvRegion, TokenId,
};
use parking_lot::Mutex;
use scheduler::batching::SequenceKey;
use tokio::sync::{Notify, watch};
use words::{FinishReason, Generation, TenantSalt};

pub(crate) use self::ends::Ends;
pub(crate) use self::events::Outbox;
pub use self::events::{Event, EventStream, FilledPages, SequenceError};
pub(crate) use self::events::{EventSender, event_channel};
pub(crate) use self::live::LiveBlocks;
pub(crate) use self::queue::{Part, Queue, QueuePlace, Waiting};
pub use self::submission::{Mode, Submission, SubmitError};
use crate::engine::stats::EngineStats;
use crate::tiers::{Tier, TierCounts, Tiers};

/// How long a refused caller is told to wait where nothing was measured yet.
const RETRY_AFTER_UNMEASURED: Duration = Duration::from_secs(1);

/// How long past its deadline [`EngineHandle::shutdown`] waits for the step under way.
const LAST_STEP_MAX: Duration = Duration::from_secs(10);

/// A running engine. A clone is another handle to the same one; dropping the last stops it.
#[derive(Clone)]
pub struct EngineHandle(Arc<Inner>);

/// What is fixed about an engine.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineInfo {
    /// Digest of configuration and weights: see [`crate::Model::fingerprint`].
    pub fingerprint: String,
    /// The shape of its KV memory.
    pub layout: KvLayout,
    /// Token ids are below it.
    pub vocab_size: u32,
    /// The longest sequence: the model's limit, the configured one, or all KV memory.
    pub context_tokens_max: u32,
    /// KV blocks in all.
    pub total_blocks: u32,
    /// Token slots of a block.
    pub block_tokens: u32,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<TokenId>,
    /// Submissions that may wait.
    pub queue_max: u32,
    /// Sequences that run at once.
    pub sequences_max: u32,
    /// Whether KV of earlier requests is found again.
    pub prefix_cache: bool,
}

/// What handles and the engine's thread both see.
pub(crate) struct Exchange {
    pub(crate) info: EngineInfo,
    pub(crate) pool: BlockPool,
    pub(crate) live: LiveBlocks<SequenceKey>,
    /// Blocks that are brought up from the tiers below.
    pub(crate) rising: Arc<LiveBlocks<u64>>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) stats: Mutex<EngineStats>,
    pub(crate) healthy: AtomicBool,
    /// Blocks that somebody outside waits for.
    pub(crate) wanted_blocks: AtomicU32,
    /// Events that one step can bring a submission besides those of its choices.
    pub(crate) step_events_max: usize,
    region: Arc<dyn KvRegion>,
    /// Memory below the pool's, fastest first.
    tiers: Vec<Arc<Tier>>,
    stop_at: Mutex<Option<Instant>>,
    next_request: AtomicU64,
}

/// What wakes the engine's thread.
pub(crate) enum Command {
    /// New work.
    Submit(Box<Accepted>),
    /// Something else to look at.
    Wake,
}

/// A submission on its way to the engine's thread.
pub(crate) struct Accepted {
    pub(crate) request: u64,
    pub(crate) submission: Submission,
    pub(crate) hasher: ChainHasher,
    /// Names of the full blocks of the context; empty without a prefix cache.
    pub(crate) hashes: Vec<BlockHash>,
    pub(crate) events: EventSender,
    pub(crate) place: QueuePlace,
}

struct Inner {
    exchange: Arc<Exchange>,
    commands: Option<SyncSender<Command>>,
    /// Told of each command, where there is no thread that waits for them.
    arrived: Option<Arc<Notify>>,
    /// Closed by the thread's end.
    stopped: watch::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

// === impl EngineHandle ===

impl EngineHandle {
    pub(crate) fn new(
        exchange: Arc<Exchange>,
        commands: SyncSender<Command>,
        stopped: watch::Receiver<()>,
        thread: JoinHandle<()>,
    ) -> Self {
        let (commands, thread) = (Some(commands), Some(thread));
        Self(Arc::new(Inner { exchange, commands, arrived: None, stopped, thread }))
    }

    /// A handle to an engine without a thread.
    pub(crate) fn driven(
        exchange: Arc<Exchange>,
        commands: SyncSender<Command>,
        stopped: watch::Receiver<()>,
        arrived: Arc<Notify>,
    ) -> Self {
        let (commands, arrived) = (Some(commands), Some(arrived));
        Self(Arc::new(Inner { exchange, commands, arrived, stopped, thread: None }))
    }

    /// What is fixed about the engine.
    #[must_use]
    pub fn info(&self) -> &EngineInfo {
        &self.0.exchange.info
    }

    /// Its blocks, to reserve some for a hand-off.
    #[must_use]
    pub fn pool(&self) -> &BlockPool {
        &self.0.exchange.pool
    }

    /// Its KV memory, to copy pages to and from while it runs.
    #[must_use]
    pub fn region(&self) -> Arc<dyn KvRegion> {
        Arc::clone(&self.0.exchange.region)
    }

    /// Names the blocks of a tenant's sequences as this engine does.
    #[must_use]
    pub fn hasher(&self, salt: &TenantSalt) -> ChainHasher {
        let EngineInfo { fingerprint, layout, .. } = self.info();
        words::chain_hasher(fingerprint, layout, salt)
    }

    /// Hands in work. Never waits; hashes the context, about 100 ns a block, on the caller's thread.
    ///
    /// # Errors
    /// See [`SubmitError`]. A table in the submission is dropped with it.
    pub fn submit(&self, submission: Submission) -> Result<EventStream, SubmitError> {
        let exchange = &self.0.exchange;
        if !self.is_healthy() || exchange.stop_at().is_some() {
            return Err(SubmitError::ShuttingDown);
        }
        submission.validate(&exchange.info)?;
        let place = self.take_place(&submission)?;
        let (choices, request) =
            (submission.work.choices.len(), exchange.next_request.fetch_add(1, Ordering::Relaxed));
        let step_events_max = exchange.step_events_max + 2 * choices;
        let (events, stream) = event_channel(&exchange.outbox, choices, step_events_max);
        let hasher = self.hasher(&submission.work.salt);
        let hashes = self.hash(&hasher, &submission);
        let key = SequenceKey { request, choice: submission.work.choices[0] };
        if let Mode::Resume { table, .. } = &submission.mode {
            exchange.live.set(key, table);
        }
        let accepted = Accepted { request, submission, hasher, hashes, events, place };
        self.send(Command::Submit(Box::new(accepted)))
            .inspect_err(|_| exchange.live.remove(key))?;
        Ok(stream)
    }

    /// Why `work` has ended with the tokens that it came with, if it has: whoever generated the last of them may
    /// have been lost before anybody heard of the end. Such work takes neither memory nor a step.
    #[must_use]
    pub fn end_of(&self, work: &Generation) -> Option<FinishReason> {
        Ends::new(work, self.info()).reason_after(&work.generated)
    }

    /// The leading blocks of `context` that the prefix cache holds, pinned; never all of them, so
    /// that there is always something left to compute or to receive.
    #[must_use]
    pub fn cached_prefix(&self, context: &[TokenId], salt: &TenantSalt) -> BlockTable {
        let EngineInfo { block_tokens, prefix_cache, .. } = *self.info();
        let hash = || self.hasher(salt).hash_blocks(None, context, block_tokens);
        let hashes = if prefix_cache { hash() } else { Vec::new() };
        self.cached_blocks(context, &hashes)
    }

    /// [`EngineHandle::cached_prefix`] for those who have the names of the context's full blocks already.
    #[must_use]
    pub fn cached_blocks(&self, context: &[TokenId], hashes: &[BlockHash]) -> BlockTable {
        let EngineInfo { block_tokens, prefix_cache, .. } = *self.info();
        let full_blocks = context.len().saturating_sub(1) / block_tokens as usize;
        let most = if prefix_cache { full_blocks.min(hashes.len()) } else { 0 };
        let found = self.pool().match_prefix(&hashes[..most], context);
        BlockTable::from_prefix(block_tokens, found)
    }

    /// A snapshot of how busy it is; cheap.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        self.0.exchange.stats()
    }

    /// Says how many blocks whoever is next in line for a hand-off wants to see free; 0 once it has them.
    ///
    /// Sequences whose readers have stalled give theirs, from the next step on.
    pub fn want_blocks(&self, blocks: u32) {
        self.0.exchange.wanted_blocks.store(blocks, Ordering::Relaxed);
    }

    /// Every block held by a sequence the engine knows, or brought up for one, each once: for
    /// [`BlockPool::orphans`], together with those of open hand-offs.
    #[must_use]
    pub fn live_blocks(&self) -> Vec<BlockId> {
        let mut blocks = self.0.exchange.live.blocks();
        blocks.extend(self.0.exchange.rising.blocks());
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// What the kinds of memory that it keeps KV in hold and have done, fastest first.
    #[must_use]
    pub fn tiers(&self) -> Vec<TierCounts> {
        let layout = &self.info().layout;
        let block_bytes = layout.page_bytes() as u64 * u64::from(layout.layers());
        let device = TierCounts::of_pool(self.pool(), block_bytes);
        let below = self.0.exchange.tiers.iter().map(|tier| tier.counts());
        std::iter::once(device).chain(below).collect()
    }

    /// Whether its thread works; once it doesn't, it never will again.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.0.exchange.healthy.load(Ordering::Acquire)
    }

    /// Takes no new work from now on, lets what is there finish until `deadline`, fails the rest
    /// with [`SequenceError::ShuttingDown`] and waits for the thread to end.
    ///
    /// Says whether it has ended; `false` means that the device hangs in a step.
    pub async fn shutdown(&self, deadline: Instant) -> bool {
        self.0.exchange.stop(deadline);
        // A full channel will wake the thread as well.
        drop(self.send(Command::Wake));
        let mut stopped = self.0.stopped.clone();
        let given_up = tokio::time::Instant::from_std(deadline + LAST_STEP_MAX);
        // Nothing is ever sent: `changed` ends when the thread drops its end.
        tokio::time::timeout_at(given_up, async { while stopped.changed().await.is_ok() {} })
            .await
            .is_ok()
    }

    fn take_place(&self, submission: &Submission) -> Result<QueuePlace, SubmitError> {
        let part = match submission.mode {
            Mode::Resume { .. } => Part::Resumed,
            Mode::Generate | Mode::Prefill => Part::Prompt {
                client: submission.work.client,
                tokens: submission.work.context_tokens() as u64,
            },
        };
        let exchange = &self.0.exchange;
        exchange
            .queue
            .enter(part, exchange.info.queue_max)
            .ok_or_else(|| SubmitError::QueueFull { retry_after: self.retry_after() })
    }

    fn retry_after(&self) -> Duration {
        let stats = self.stats();
        if stats.prefill_tokens_per_s == 0.0 {
            return RETRY_AFTER_UNMEASURED;
        }
        stats.prefill_wait()
    }

    fn hash(&self, hasher: &ChainHasher, submission: &Submission) -> Vec<BlockHash> {
        let info = self.info();
        if !info.prefix_cache {
            return Vec::new();
        }
        let work = &submission.work;
        if work.generated.is_empty() {
            return hasher.hash_blocks(None, &work.prompt, info.block_tokens);
        }
        hasher.hash_blocks(None, &work.context(), info.block_tokens)
    }

    fn send(&self, command: Command) -> Result<(), SubmitError> {
        let commands = self.0.commands.as_ref().ok_or(SubmitError::ShuttingDown)?;
        commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::QueueFull { retry_after: self.retry_after() },
            TrySendError::Disconnected(_) => SubmitError::ShuttingDown,
        })?;
        self.0.arrived.iter().for_each(|arrived| arrived.notify_one());
        Ok(())
    }
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle")
            .field("info", self.info())
            .field("healthy", &self.is_healthy())
            .finish_non_exhaustive()
    }
}

// === impl Exchange ===

impl Exchange {
    pub(crate) fn new(info: EngineInfo, region: Arc<dyn KvRegion>, step_events_max: usize) -> Self {
        let pool = BlockPool::new(info.total_blocks, info.block_tokens)
            .with_prefix_cache(info.prefix_cache);
        Self {
            info,
            pool,
            live: LiveBlocks::default(),
            rising: Arc::default(),
            queue: Arc::default(),
            outbox: Arc::default(),
            stats: Mutex::default(),
            healthy: AtomicBool::new(true),
            wanted_blocks: AtomicU32::new(0),
            step_events_max,
            region,
            tiers: Vec::new(),
            stop_at: Mutex::new(None),
            next_request: AtomicU64::new(0),
        }
    }

    /// The same, with nobody but the engine itself to deliver its events.
    pub(crate) fn without_courier(self) -> Self {
        Self { outbox: Arc::new(Outbox::without_courier()), ..self }
    }

    /// The same, over slower memory.
    pub(crate) fn above(self, tiers: Option<&Tiers>) -> Self {
        Self { tiers: tiers.map_or_else(Vec::new, |tiers| tiers.all().to_vec()), ..self }
    }

    pub(crate) fn region(&self) -> &Arc<dyn KvRegion> {
        &self.region
    }

    /// See [`EngineHandle::stats`].
    pub(crate) fn stats(&self) -> EngineStats {
        let mut stats = self.stats.lock().clone();
        let Waiting { prompts, resumed, backlog } = self.queue.waiting();
        stats.waiting += prompts + resumed;
        stats.backlog.extend(&backlog);
        stats
    }

    /// When the engine has to stop, once that is decided.
    pub(crate) fn stop_at(&self) -> Option<Instant> {
        *self.stop_at.lock()
    }

    /// The earliest deadline that anybody names counts.
    fn stop(&self, deadline: Instant) {
        let mut stop_at = self.stop_at.lock();
        *stop_at = Some(stop_at.map_or(deadline, |earlier| earlier.min(deadline)));
    }
}

// === impl Inner ===

impl Drop for Inner {
    /// Closing the command channel stops the thread, after the step under way.
    fn drop(&mut self) {
        self.commands = None;
        self.arrived.iter().for_each(|arrived| arrived.notify_one());
        if let Some(thread) = self.thread.take() {
            // It catches its own panics, so there is no other result to look at.
            drop(thread.join());
        }
    }
}
