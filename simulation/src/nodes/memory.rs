//! The pages of one simulated worker, watched: who writes must still own what he writes to.

use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use kv_cache::{
    BlockId, BlockPool, BlockRef, Fence, HostRegion, KvLayout, KvRegion, Offload, PageRange,
    RegionError,
};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio_util::task::TaskTracker;

use crate::checks::Verdicts;
use crate::planted::Bug;

/// The longest that a copy takes.
const COPY_MAX: Duration = Duration::from_millis(3);
/// How late a planted late write comes.
const LATE: Duration = Duration::from_millis(40);
/// Bytes of a key or a value.
const WORD_BYTES: usize = 8;

/// A worker's pages. A clone is another handle to the same.
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

struct Inner {
    pages: HostRegion,
    /// Whose blocks these are.
    pool: OnceLock<BlockPool>,
    rng: Mutex<ChaCha8Rng>,
    tasks: TaskTracker,
    verdicts: Verdicts,
    bug: Option<Bug>,
    /// Tokens of the step submitted last.
    step_tokens: Mutex<usize>,
}

/// One slot of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The token.
    pub key: u64,
    /// A digest of everything up to it.
    pub value: u64,
}

// === impl Memory ===

impl Memory {
    /// Pages of `blocks` blocks.
    ///
    /// - `tasks`: of the process that they are in.
    #[must_use]
    pub fn new(
        (layout, blocks): (KvLayout, u32),
        seed: u64,
        tasks: TaskTracker,
        verdicts: Verdicts,
        bug: Option<Bug>,
    ) -> Self {
        Self(Arc::new(Inner {
            pages: HostRegion::new(layout, blocks),
            pool: OnceLock::new(),
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            tasks,
            verdicts,
            bug,
            step_tokens: Mutex::default(),
        }))
    }

    /// Says whose blocks they are.
    pub fn belongs_to(&self, pool: &BlockPool) {
        drop(self.0.pool.set(pool.clone()));
    }

    /// Reads a slot of a layer.
    #[must_use]
    pub fn read(&self, layer: u32, place: (BlockId, usize)) -> Slot {
        let (key, value) = self.0.offsets(place);
        let bytes = self.0.pages.layer(layer).read();
        Slot { key: word(&bytes[key..]), value: word(&bytes[value..]) }
    }

    /// Writes a slot of a layer.
    pub fn write(&self, layer: u32, place: (BlockId, usize), slot: Slot) {
        let (key, value) = self.0.offsets(place);
        let mut bytes = self.0.pages.layer(layer).write();
        bytes[key..key + WORD_BYTES].copy_from_slice(&slot.key.to_le_bytes());
        bytes[value..value + WORD_BYTES].copy_from_slice(&slot.value.to_le_bytes());
    }

    /// Copies a block, in all layers.
    pub fn copy_block(&self, from: BlockId, to: BlockId) {
        self.check_owned([from, to]);
        self.0.pages.copy_block(from, to);
    }

    /// Holds that every block that a step writes to is somebody's.
    pub fn check_owned(&self, written: impl IntoIterator<Item = BlockId>) {
        let Some(pool) = self.0.pool.get() else { return };
        let mut written: Vec<BlockId> = written.into_iter().collect();
        written.sort_unstable();
        written.dedup();
        let others =
            (0..self.0.pages.blocks()).map(BlockId).filter(|id| written.binary_search(id).is_err());
        if pool.orphans(others) != written.len() as u32 {
            self.0.verdicts.violated(format!("a step writes to a free block among {written:?}"));
        }
    }

    /// Notes the size of a step.
    pub fn note_step(&self, tokens: usize) {
        *self.0.step_tokens.lock() = tokens;
    }

    /// Tokens of the step submitted last.
    #[must_use]
    pub fn step_tokens(&self) -> usize {
        *self.0.step_tokens.lock()
    }

    /// Holds that the pages are still those that were meant.
    fn check_current(&self, blocks: &[BlockRef]) {
        let Some(pool) = self.0.pool.get() else { return };
        for &block in blocks.iter().filter(|&&block| !pool.is_current(block)) {
            self.0.verdicts.violated(format!("a hand-off writes to {block}, which was freed"));
        }
    }

    /// Promises a block to nobody, or puts it to nobody's use.
    fn leak(&self, bug: Bug) {
        let Some(mut promised) = self.0.pool.get().and_then(|pool| pool.reserve(1).ok()) else {
            return;
        };
        if bug == Bug::OrphanBlock {
            std::mem::forget(promised.bind());
        }
        std::mem::forget(promised);
    }

    /// A copy that reports its end before it has begun.
    fn put_late(&self, pages: &PageRange<'_>, from: &[u8]) {
        let (memory, layers) = (self.clone(), pages.layers.clone());
        let (blocks, bytes) = (pages.blocks.to_vec(), from.to_vec());
        self.0.tasks.spawn(async move {
            tokio::time::sleep(LATE).await;
            memory.check_current(&blocks);
            // Checked when it was asked for.
            drop(memory.0.pages.scatter(&PageRange { layers, blocks: &blocks }, &bytes));
        });
    }
}

impl KvRegion for Memory {
    fn layout(&self) -> &KvLayout {
        self.0.pages.layout()
    }

    fn gather(&self, pages: &PageRange<'_>, at: Fence, out: &mut [u8]) -> Result<(), RegionError> {
        self.0.pages.gather(pages, at, out)
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        pages.check(self.layout(), self.0.pages.blocks(), bytes.len())?;
        if self.0.bug == Some(Bug::LateWrite) {
            self.put_late(pages, bytes);
            return Ok(());
        }
        if let Some(bug @ (Bug::LeakedReservation | Bug::OrphanBlock)) = self.0.bug {
            self.leak(bug);
        }
        self.check_current(pages.blocks);
        self.0.pages.scatter(pages, bytes)
    }

    fn offload(&self) -> Option<Offload> {
        let memory = self.clone();
        Some(Arc::new(move |work| {
            let delay = COPY_MAX.mul_f64(memory.0.rng.lock().random::<f64>());
            memory.0.tasks.spawn(async move {
                tokio::time::sleep(delay).await;
                work();
            });
        }))
    }
}

// === impl Inner ===

impl Inner {
    /// Where a slot's key and value are in their layer.
    fn offsets(&self, (block, slot): (BlockId, usize)) -> (usize, usize) {
        let layout = self.pages.layout();
        let page = block.index() * layout.page_bytes() + slot * WORD_BYTES;
        (page + layout.numbers_at(0, 0).start, page + layout.numbers_at(1, 0).start)
    }
}

fn word(bytes: &[u8]) -> u64 {
    let (word, _) = bytes.split_first_chunk().expect("a whole word");
    u64::from_le_bytes(*word)
}

#[cfg(test)]
mod tests {
    use kv_cache::region::conformance::{Subject, conformance};
    use kv_cache::{KvCodec, PageShape};

    use super::*;
    use crate::nodes::script::BLOCK_TOKENS;

    #[test]
    fn simulated_memory_conforms() {
        let layouts = [KvCodec::F32, KvCodec::F16]
            .map(|codec| KvLayout::whole(3, 1, PageShape::keys_and_values(2, BLOCK_TOKENS), codec));
        conformance(&layouts, |layout, blocks| {
            let (tasks, verdicts) = (TaskTracker::new(), Verdicts::default());
            Subject {
                region: Arc::new(Memory::new((layout.clone(), blocks), 1, tasks, verdicts, None)),
                fence: Box::new(Fence::default),
            }
        });
    }
}
