//! Slower memory below the device's: what it has no room for is kept on the host and on disk, and comes back.
//!
//! Each tier is a [`BlockPool`] over memory of its own (`TierMemory`), below that of the tier above it. Blocks go down ahead of
//! their eviction (`descent`) and come up when a prompt wants them (`ascent`), both on threads of their own: steps go on
//! meanwhile. What came up is cached like anything else, so that a sequence that waited for it finds it as it finds every prefix.

mod ascent;
mod descent;
mod disk;
mod memory;
mod pages;
mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use kv_cache::{BlockHandle, BlockHash, BlockPool, KvRegion, TokenId};

pub(crate) use self::ascent::{Ascent, Rise};
use self::descent::{Descent, Source};
pub use self::disk::DiskOptions;
use self::disk::{DiskMemory, Folder};
use self::memory::{HostMemory, TierMemory};
use self::pages::PageOrder;
pub use self::stats::TierCounts;
use self::stats::TierStats;
use crate::clock;
use crate::error::EngineError;
use crate::handle::EngineInfo;

/// Bytes that are copied at a time: some milliseconds even from a slow disk, and enough for every link's full rate.
const GROUP_BYTES: usize = 16 << 20;

/// Bytes that come up from the host at a time: 5 ms of a GPU's link, so that its buffers are filled while others are emptied all
/// the time but for the first and the last.
const HOST_RISE_BYTES: usize = 256 << 20;

/// Prompts whose blocks wait to be brought up from one tier. Each waits for those before it, and those that find no place ask
/// again with the next step.
const ASCENTS_MAX: usize = 64;

/// What an engine keeps below its device's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierOptions {
    /// Bytes of the host's memory; 0: none.
    pub host_bytes: u64,
    /// A part of a disk, if there is one.
    pub disk: Option<DiskOptions>,
}

/// One tier below the device.
pub(crate) struct Tier {
    pool: BlockPool,
    memory: Box<dyn TierMemory>,
    stats: TierStats,
    /// Whether names were taken back that it had: what they named is not to be found again.
    has_forgotten: AtomicBool,
    /// Blocks that are brought up at a time.
    rises: usize,
}

/// The tiers below an engine's pool, fastest first, and the threads that carry blocks between them.
pub(crate) struct Tiers {
    tiers: Vec<Arc<Tier>>,
    /// Wakes what carries blocks down from the device.
    nudge: SyncSender<()>,
    /// Of each tier, what carries blocks up whose slowest come from it.
    lifts: Vec<SyncSender<Ascent>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A block that a tier has, held there until it was read.
pub(crate) struct Stored {
    /// Index of the tier.
    tier: usize,
    block: BlockHandle,
}

// === impl Tier ===

impl Tier {
    pub(crate) fn counts(&self) -> TierCounts {
        self.stats.counts(&self.pool)
    }
}

// === impl Tiers ===

impl Tiers {
    /// Puts tiers below `pool` and starts their threads; `None` where nothing is asked for.
    ///
    /// # Errors
    /// [`EngineError::Limits`] for a tier that holds no block, [`EngineError::Io`] for a folder that can't be had,
    /// [`EngineError::Device`] if there are no threads.
    pub(crate) fn open(
        options: &TierOptions,
        info: &EngineInfo,
        pool: &BlockPool,
        region: &Arc<dyn KvRegion>,
    ) -> Result<Option<Self>, EngineError> {
        let order = PageOrder::of(region.layout());
        let mut tiers: Vec<Arc<Tier>> = Vec::new();
        if options.host_bytes > 0 {
            tiers.push(Arc::new(Tier::host(options.host_bytes, pool, order)?));
        }
        if let Some(disk) = &options.disk {
            let above = tiers.last().map_or(pool, |host| &host.pool);
            let tier = Tier::disk(disk, info, above, order)?;
            tiers.push(Arc::new(tier));
        }
        if tiers.is_empty() { Ok(None) } else { Self::start(tiers, pool, region).map(Some) }
    }

    fn start(
        tiers: Vec<Arc<Tier>>,
        pool: &BlockPool,
        region: &Arc<dyn KvRegion>,
    ) -> Result<Self, EngineError> {
        // A tier's threads end when nobody is left to ask them for anything.
        let (nudge, _) = sync_channel(1);
        let (lifts, threads) = (Vec::new(), Vec::new());
        let mut this = Self { tiers, nudge, lifts, stopping: Arc::default(), threads };
        this.start_descents(pool, region)?;
        this.start_ascents(region)?;
        Ok(this)
    }

    /// From the lowest tier to the device, each way wakes the one below it.
    fn start_descents(
        &mut self,
        pool: &BlockPool,
        region: &Arc<dyn KvRegion>,
    ) -> Result<(), EngineError> {
        let order = PageOrder::of(region.layout());
        let mut next = None;
        for (at, to) in self.tiers.iter().enumerate().rev() {
            let from = match at.checked_sub(1) {
                Some(above) => Source::Tier(Arc::clone(&self.tiers[above])),
                None => Source::Device { pool: pool.clone(), region: Arc::clone(region), order },
            };
            let (to, stopping) = (Arc::clone(to), Arc::clone(&self.stopping));
            let name = format!("baton-{}-down", to.pool.tier().name());
            let descent = Descent { from, to, order, stopping, next: next.take() };
            // One that waits to be looked at is as good as many.
            let (nudge, nudged) = sync_channel(1);
            self.threads.push(spawn(&name, move || descent.run(&nudged))?);
            next = Some(nudge);
        }
        self.nudge = next.expect("at least one tier");
        Ok(())
    }

    fn start_ascents(&mut self, region: &Arc<dyn KvRegion>) -> Result<(), EngineError> {
        for tier in &self.tiers {
            let (lift, ascents) = sync_channel(ASCENTS_MAX);
            let (tiers, region) = (self.tiers.clone(), Arc::clone(region));
            let stopping = Arc::clone(&self.stopping);
            let name = format!("baton-{}-up", tier.pool.tier().name());
            let run = move || ascent::run(&ascents, &tiers, &*region, &stopping);
            self.threads.push(spawn(&name, run)?);
            self.lifts.push(lift);
        }
        Ok(())
    }

    /// The tiers, fastest first.
    pub(crate) fn all(&self) -> &[Arc<Tier>] {
        &self.tiers
    }

    /// Has blocks carried down, if some are to be.
    pub(crate) fn nudge(&self) {
        nudge(&self.nudge);
    }

    /// Says that names of blocks were taken back, in all tiers.
    pub(crate) fn strike(&self) {
        self.tiers.iter().for_each(|tier| tier.has_forgotten.store(true, Ordering::Release));
        self.nudge();
    }

    /// What the tiers have of a sequence's full blocks from the `first` on, as far as it is brought up sooner than it is computed.
    ///
    /// - `block_s`: what computing a block takes, seconds; 0 where nobody knows.
    pub(crate) fn find(
        &self,
        first: usize,
        hashes: &[BlockHash],
        tokens: &[TokenId],
        block_s: f64,
    ) -> Vec<Stored> {
        let mut found = Vec::new();
        loop {
            let before = found.len();
            for (index, tier) in self.tiers.iter().enumerate() {
                let run = tier.pool.match_run(first + found.len(), hashes, tokens);
                if !run.is_empty() && tier.stats.is_slower_than(block_s) {
                    return found;
                }
                found.extend(run.into_iter().map(|block| Stored { tier: index, block }));
            }
            if found.len() == before {
                return found;
            }
        }
    }

    /// Has blocks brought up. `None` where too many wait already; they are given back then.
    pub(crate) fn lift(&self, ascent: Ascent) -> Option<Rise> {
        let rise = ascent.rise();
        match self.lifts[ascent.slowest_tier()].try_send(ascent) {
            Ok(()) => Some(rise),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

impl Drop for Tiers {
    /// Each thread ends with what it copies just now.
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        self.lifts.clear();
        self.nudge = sync_channel(1).0;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that copied KV blocks between tiers had died");
            }
        }
    }
}

impl Tier {
    fn host(bytes: u64, pool: &BlockPool, order: PageOrder) -> Result<Self, EngineError> {
        let blocks = blocks_in(bytes, order.block_bytes(), "host_bytes")?;
        let memory = Box::new(HostMemory::new(blocks));
        let pool = pool.add_tier(kv_cache::Tier::Host, blocks);
        Ok(Self::new(pool, memory, order, HOST_RISE_BYTES))
    }

    /// Opens a tier on disk, with what an earlier life has left there.
    fn disk(
        options: &DiskOptions,
        info: &EngineInfo,
        above: &BlockPool,
        order: PageOrder,
    ) -> Result<Self, EngineError> {
        let began = clock::now();
        let failed = |error: std::io::Error| EngineError::io(&options.dir, &error);
        let name = disk::name_of(&info.fingerprint, &info.layout);
        let folder = Folder::open(&options.dir, &name).map_err(failed)?;
        let bytes = folder.reclaim(options.bytes);
        let sizes = (order.block_bytes(), info.block_tokens as usize);
        let blocks = blocks_in(bytes, disk::bytes_of(sizes), "disk.bytes")?;
        let (memory, found) = DiskMemory::open(folder, blocks, sizes).map_err(failed)?;
        let pool = above.add_tier(kv_cache::Tier::Disk, blocks);
        let found = found.publish(&pool);
        let took = clock::now() - began;
        tracing::info!(dir = %options.dir.display(), blocks, found, ?took, "KV blocks are kept on disk");
        Ok(Self::new(pool, Box::new(memory), order, GROUP_BYTES))
    }

    /// - `rise_bytes`: brought up at a time.
    fn new(
        pool: BlockPool,
        memory: Box<dyn TierMemory>,
        order: PageOrder,
        rise_bytes: usize,
    ) -> Self {
        Self {
            pool,
            memory,
            stats: TierStats::new(order.block_bytes()),
            has_forgotten: AtomicBool::new(false),
            rises: order.blocks_of(rise_bytes),
        }
    }
}

/// Wakes a thread; where it will look anyway, or has ended, there is nothing to do.
fn nudge(thread: &SyncSender<()>) {
    let _ = thread.try_send(());
}

fn blocks_in(bytes: u64, block_bytes: usize, field: &str) -> Result<u32, EngineError> {
    let blocks = (bytes / block_bytes as u64).min(u64::from(u32::MAX - 1)) as u32;
    if blocks == 0 {
        let reason = format!("{bytes} bytes hold no KV block, which takes {block_bytes}");
        return Err(EngineError::Limits { field: field.to_owned(), reason });
    }
    Ok(blocks)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, EngineError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| EngineError::Device(format!("no thread for KV blocks: {error}")))
}

/// Tells of the 1st, 2nd, 4th, 8th time and so on: what goes wrong goes wrong a thousand times a second.
fn log_count(count: u64, tell: impl FnOnce(u64)) {
    if count.is_power_of_two() {
        tell(count);
    }
}
