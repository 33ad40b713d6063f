//! How blocks go down: copied while nobody needs their place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use kv_cache::{BlockHandle, BlockId, BlockPool, BlockRef, Fence, KvRegion, PageRange, Unsaved};

use super::memory::TierFault;
use super::pages::PageOrder;
use super::{GROUP_BYTES, Tier, log_count, nudge};
use crate::clock;

/// How long a tier is left alone that has failed to keep a block: a disk that is full is not full for a moment.
const REST: Duration = Duration::from_secs(1);

/// Where blocks come from.
pub(super) enum Source {
    /// The device.
    Device {
        /// Its blocks.
        pool: BlockPool,
        /// Their pages.
        region: Arc<dyn KvRegion>,
        /// Of which form.
        order: PageOrder,
    },
    /// A tier below it.
    Tier(Arc<Tier>),
}

/// The way from one tier to the next, on one thread: so much is in flight as is copied at a time.
pub(super) struct Descent {
    pub(super) from: Source,
    pub(super) to: Arc<Tier>,
    pub(super) order: PageOrder,
    pub(super) stopping: Arc<AtomicBool>,
    /// Wakes what carries blocks further down.
    pub(super) next: Option<SyncSender<()>>,
}

/// Room for a group of blocks, kept from one to the next: memory that is new is written twice before it holds anything.
#[derive(Default)]
struct Scratch {
    /// `[blocks, layers, page]`.
    blocks: Vec<u8>,
    /// `[layers, blocks, page]`, as a region gives them.
    pages: Vec<u8>,
}

/// How a group of blocks fared.
enum Carried {
    /// There may be more.
    Some,
    /// There is nothing to carry, or no place for it.
    Nothing,
    /// The tier below takes nothing just now.
    Refused,
}

// === impl Source ===

impl Source {
    fn pool(&self) -> &BlockPool {
        match self {
            Self::Device { pool, .. } => pool,
            Self::Tier(tier) => &tier.pool,
        }
    }

    /// Reads blocks, `bytes` in all. They may go to somebody else meanwhile: then it is rubbish.
    fn read(&self, blocks: &[BlockRef], bytes: usize, scratch: &mut Scratch) -> bool {
        scratch.blocks.resize(bytes, 0);
        match self {
            Self::Device { region, order, .. } => gather(&**region, order, blocks, scratch),
            Self::Tier(tier) => read(tier, blocks, &mut scratch.blocks),
        }
    }
}

fn read(tier: &Tier, blocks: &[BlockRef], out: &mut [u8]) -> bool {
    let mut out = out.chunks_exact_mut(out.len() / blocks.len());
    blocks.iter().zip(&mut out).all(|(block, out)| {
        let bytes = tier.memory.read(block.block).ok().filter(|bytes| bytes.len() == out.len());
        bytes.map(|bytes| out.copy_from_slice(&bytes)).is_some()
    })
}

fn gather(
    region: &dyn KvRegion,
    order: &PageOrder,
    blocks: &[BlockRef],
    Scratch { blocks: out, pages: joined }: &mut Scratch,
) -> bool {
    joined.resize(out.len(), 0);
    let pages = PageRange { layers: 0..region.layout().layers(), blocks };
    // Written in steps that have ended, or they would have no name.
    if let Err(error) = region.gather(&pages, Fence::default(), joined) {
        tracing::warn!(%error, "KV blocks can't be copied from the device, and are lost once it evicts them");
        return false;
    }
    for (index, out) in out.chunks_exact_mut(order.block_bytes()).enumerate() {
        order.take(joined, blocks.len(), index, out);
    }
    true
}

// === impl Descent ===

impl Descent {
    /// Carries down what is to be, whenever somebody says that something may be.
    pub(super) fn run(&self, nudged: &Receiver<()>) {
        let (mut resting, mut scratch) = (None, Scratch::default());
        while nudged.recv().is_ok() {
            if self.to.has_forgotten.swap(false, Ordering::AcqRel) {
                self.strike(&self.to.pool.unnamed());
            }
            if resting.is_none_or(|until| until <= clock::now()) {
                resting = self.carry_all(&mut scratch).then(|| clock::now() + REST);
            }
            self.next.iter().for_each(nudge);
        }
    }

    /// Carries all that is to be carried. Says whether the tier below takes no more.
    fn carry_all(&self, scratch: &mut Scratch) -> bool {
        while !self.stopping.load(Ordering::Acquire) {
            match self.carry(scratch) {
                Carried::Some => self.next.iter().for_each(nudge),
                Carried::Nothing => return false,
                Carried::Refused => return true,
            }
        }
        false
    }

    /// Carries a group of blocks.
    fn carry(&self, scratch: &mut Scratch) -> Carried {
        let mut unsaved = self.from.pool().unsaved(self.order.blocks_of(GROUP_BYTES));
        let copies = self.places(unsaved.len());
        unsaved.truncate(copies.len());
        if unsaved.is_empty() {
            return Carried::Nothing;
        }
        let blocks: Vec<_> = unsaved.iter().map(|unsaved| unsaved.at).collect();
        let bytes = blocks.len() * self.order.block_bytes();
        if !self.from.read(&blocks, bytes, scratch) {
            return Carried::Nothing;
        }
        let mut saved = 0;
        let bytes = scratch.blocks.chunks_exact(self.order.block_bytes());
        for ((unsaved, copy), bytes) in unsaved.iter().zip(&copies).zip(bytes) {
            match self.keep(unsaved, copy.id(), bytes) {
                Ok(kept) => saved += usize::from(kept && self.save(unsaved, copy)),
                Err(fault) => {
                    self.tell(&fault);
                    return Carried::Refused;
                }
            }
        }
        // None: they went to others meanwhile, and the next time will tell.
        if saved > 0 { Carried::Some } else { Carried::Nothing }
    }

    /// Writes a copy of what was read, if that was the block's own: a later life of the worker believes what it finds.
    fn keep(&self, unsaved: &Unsaved, copy: BlockId, bytes: &[u8]) -> Result<bool, TierFault> {
        if !self.from.pool().has(unsaved) {
            return Ok(false);
        }
        self.to.memory.write(copy, unsaved, bytes)?;
        Ok(true)
    }

    /// Lets a copy be found, or makes sure that it never is.
    fn save(&self, unsaved: &Unsaved, copy: &BlockHandle) -> bool {
        let saved = self.from.pool().save(unsaved, copy);
        if saved {
            self.to.stats.sank(1);
        } else {
            self.strike(&[copy.id()]);
        }
        saved
    }

    fn strike(&self, blocks: &[BlockId]) {
        let struck = self.to.memory.strike(blocks);
        struck.unwrap_or_else(|fault| self.tell(&fault));
    }

    /// Blocks of the tier below, as many as it gives.
    fn places(&self, blocks: usize) -> Vec<BlockHandle> {
        let place = |_| self.to.pool.reserve(1).ok()?.bind();
        (0..blocks).map_while(place).collect()
    }

    fn tell(&self, fault: &TierFault) {
        let tier = self.to.pool.tier().name();
        log_count(self.to.stats.failed_write(), |count| {
            tracing::warn!(%fault, tier, count, "a KV block isn't kept");
        });
    }
}
