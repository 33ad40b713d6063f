//! How blocks go down: copied while nobody needs their place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use kv_cache::{BlockHandle, BlockPool, BlockRef, Fence, KvRegion, PageRange, Unsaved};

use super::pages::PageOrder;
use super::{Tier, log_count};

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
}

/// The way from one tier to the next, on one thread: so much is in flight as is copied at a time.
pub(super) struct Descent {
    from: Source,
    to: Arc<Tier>,
    order: PageOrder,
    stopping: Arc<AtomicBool>,
}

// === impl Source ===

impl Source {
    fn pool(&self) -> &BlockPool {
        match self {
            Self::Device { pool, .. } => pool,
        }
    }

    /// Reads blocks into `out`, `[blocks, layers, page]`. They may go to somebody else meanwhile: then it is rubbish.
    fn read(&self, blocks: &[BlockRef], out: &mut [u8]) -> bool {
        match self {
            Self::Device { region, order, .. } => gather(&**region, order, blocks, out),
        }
    }
}

fn gather(region: &dyn KvRegion, order: &PageOrder, blocks: &[BlockRef], out: &mut [u8]) -> bool {
    let mut joined = vec![0; out.len()];
    let pages = PageRange { layers: 0..region.layout().layers(), blocks };
    // Written in steps that have ended, or they would have no name.
    if let Err(error) = region.gather(&pages, Fence::default(), &mut joined) {
        tracing::warn!(%error, "KV blocks can't be copied from the device, and are lost once it evicts them");
        return false;
    }
    for (index, out) in out.chunks_exact_mut(order.block_bytes()).enumerate() {
        order.take(&joined, blocks.len(), index, out);
    }
    true
}

// === impl Descent ===

impl Descent {
    pub(super) fn new(
        from: Source,
        to: Arc<Tier>,
        order: PageOrder,
        stopping: Arc<AtomicBool>,
    ) -> Self {
        Self { from, to, order, stopping }
    }

    /// Carries down what is to be, whenever somebody says that something may be.
    pub(super) fn run(&self, nudged: &Receiver<()>) {
        while nudged.recv().is_ok() {
            while !self.stopping.load(Ordering::Acquire) && self.carry() {}
        }
    }

    /// Carries a group of blocks. Says whether there may be more.
    fn carry(&self) -> bool {
        let mut unsaved = self.from.pool().unsaved(self.order.group());
        let copies = self.places(unsaved.len());
        unsaved.truncate(copies.len());
        if unsaved.is_empty() {
            return false;
        }
        let blocks: Vec<_> = unsaved.iter().map(|unsaved| unsaved.at).collect();
        let mut bytes = vec![0; blocks.len() * self.order.block_bytes()];
        if !self.from.read(&blocks, &mut bytes) {
            return false;
        }
        let bytes = bytes.chunks_exact(self.order.block_bytes());
        let kept = unsaved.iter().zip(copies).zip(bytes);
        let kept = kept.filter(|((unsaved, copy), bytes)| self.keep(unsaved, copy, bytes)).count();
        self.to.stats.sank(kept);
        kept > 0
    }

    /// Blocks of the tier below, as many as it gives.
    fn places(&self, blocks: usize) -> Vec<BlockHandle> {
        let place = |_| self.to.pool.reserve(1).ok()?.bind();
        (0..blocks).map_while(place).collect()
    }

    fn keep(&self, unsaved: &Unsaved, copy: &BlockHandle, bytes: &[u8]) -> bool {
        if let Err(fault) = self.to.memory.write(copy.id(), unsaved, bytes) {
            let tier = self.to.pool.tier().name();
            log_count(self.to.stats.failed_write(), |count| {
                tracing::warn!(%fault, tier, count, "a KV block isn't kept");
            });
            return false;
        }
        self.from.pool().save(unsaved, copy)
    }
}
