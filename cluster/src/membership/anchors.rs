//! Where hot prefixes are, roughly: what a router goes by that knows nothing better yet.
//!
//! Workers put the names of some prefixes into the store, hottest first and few: those whose length is a multiple of
//! [`kv_cache::ANCHOR_BLOCKS`]. A router that starts reads all of them at once, long before it has heard each worker's own report, and
//! as long as there is the store it needs no worker for it.

use std::collections::HashMap;
use std::sync::Arc;

use kv_cache::{Anchor, BlockHash, Hits, Holder, PrefixIndex, Tier};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use words::{Incarnation, Life, WorkerId};

/// Hot prefixes that a worker tells of at most.
///
/// A thousand workers make 256,000 keys of some 150 bytes in all: 40 MB in a store that holds 2 GiB as shipped, read in a second.
pub const TOLD_MAX: usize = 256;

/// Bytes for all of them: two million.
const BYTES_MAX: usize = 64 << 20;

/// Who has which hot prefixes. A clone is the same one.
#[derive(Clone)]
pub struct Anchors(Arc<RwLock<Picture>>);

/// What a worker says of a prefix: the value of its key in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which life of the worker.
    pub incarnation: Incarnation,
    /// Blocks of the prefix.
    pub blocks: u32,
}

/// All that was told.
pub(super) struct Picture {
    index: PrefixIndex,
    workers: HashMap<WorkerId, (Holder, Incarnation)>,
    /// Who a holder is, by its number.
    lives: Vec<Option<Life>>,
}

// === impl Anchors ===

impl Default for Anchors {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Picture::new())))
    }
}

impl Anchors {
    /// Workers that tell of a part of a prompt, and how many leading blocks that is. A guess: that what leads to a prefix is
    /// told of, too, and that it is still there.
    ///
    /// - `names`: of the prompt's full blocks, from its start.
    #[must_use]
    pub fn find(&self, names: &[BlockHash]) -> Vec<(Life, u32)> {
        let along: Vec<Anchor> = Anchor::along(names).collect();
        let hashes: Vec<BlockHash> = along.iter().map(|anchor| anchor.hash).collect();
        let (picture, mut hits) = (self.0.read(), Hits::default());
        picture.index.find(&hashes, &mut hits);
        let found = hits.as_slice().iter().filter_map(|hit| {
            let last = hit.within(Tier::Device).checked_sub(1)?;
            let life = picture.lives[hit.holder.index()].clone()?;
            Some((life, along[last as usize].blocks))
        });
        found.collect()
    }

    /// Prefixes that are told of, each once for every worker.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.read().index.memberships() as usize
    }

    /// Whether nobody tells of any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn put(&self, worker: &WorkerId, incarnation: Incarnation, hash: BlockHash) {
        self.0.write().put(worker, incarnation, hash);
    }

    pub(super) fn remove(&self, worker: &WorkerId, hash: BlockHash) {
        self.0.write().remove(worker, hash);
    }

    pub(super) fn forget(&self, worker: &WorkerId) {
        self.0.write().forget(worker);
    }

    /// Takes a picture of all that is told now instead of the one there was.
    pub(super) fn replace(&self, picture: Picture) {
        // What was there is dropped after the lock is: that may take a while.
        let _before = std::mem::replace(&mut *self.0.write(), picture);
    }
}

// === impl Picture ===

impl Picture {
    pub(super) fn new() -> Self {
        let index = PrefixIndex::new(BYTES_MAX);
        Self { index, workers: HashMap::new(), lives: Vec::new() }
    }

    /// Notes what a worker tells, unless a newer life of it has told something.
    pub(super) fn put(&mut self, worker: &WorkerId, incarnation: Incarnation, hash: BlockHash) {
        let known = self.workers.get(worker).copied();
        if known.is_some_and(|(_, life)| life > incarnation) {
            return;
        }
        let same = known.filter(|(_, life)| *life == incarnation).map(|(holder, _)| holder);
        let Some(holder) = same.or_else(|| self.begin(worker, incarnation)) else { return };
        // What there is no room for isn't known.
        let _ = self.index.insert(holder, hash, Tier::Device);
    }

    fn remove(&mut self, worker: &WorkerId, hash: BlockHash) {
        let Some((holder, _)) = self.workers.get(worker) else { return };
        self.index.remove(*holder, hash, Tier::Device);
        if self.index.blocks_of(*holder) == 0 {
            self.forget(worker);
        }
    }

    fn forget(&mut self, worker: &WorkerId) {
        if let Some((holder, _)) = self.workers.remove(worker) {
            self.index.leave(holder);
            self.lives[holder.index()] = None;
        }
    }

    /// Begins with a life, and ends with the one before. `None` if there are too many workers.
    fn begin(&mut self, worker: &WorkerId, incarnation: Incarnation) -> Option<Holder> {
        self.forget(worker);
        let holder = self.index.join()?;
        self.workers.insert(worker.clone(), (holder, incarnation));
        let count = self.lives.len().max(holder.index() + 1);
        self.lives.resize(count, None);
        self.lives[holder.index()] = Some(Life { worker: worker.clone(), incarnation });
        Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spread as real names are.
    fn names(prompt: u128, blocks: u128) -> Vec<BlockHash> {
        let spread = |number: u128| number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        (1..=blocks).map(|block| BlockHash(spread(prompt << 32 | block))).collect()
    }

    fn put(anchors: &Anchors, worker: &str, life: u64, names: &[BlockHash]) {
        for anchor in Anchor::along(names) {
            anchors.put(&worker.into(), Incarnation(life), anchor.hash);
        }
    }

    fn found(anchors: &Anchors, names: &[BlockHash]) -> Vec<(String, u64, u32)> {
        let found = anchors.find(names).into_iter();
        let mut found: Vec<_> = found
            .map(|(life, blocks)| (life.worker.to_string(), life.incarnation.0, blocks))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_prompt_is_found_as_far_as_it_is_told_of() {
        let (anchors, prompt) = (Anchors::default(), names(1, 100));
        put(&anchors, "a", 1, &prompt[..40]);
        put(&anchors, "b", 1, &prompt);
        put(&anchors, "c", 1, &names(2, 40));
        put(&anchors, "d", 1, &prompt[..15]);
        assert_eq!(found(&anchors, &prompt), [("a".into(), 1, 32), ("b".into(), 1, 96)]);
        assert_eq!(found(&anchors, &prompt[..20]), [("a".into(), 1, 16), ("b".into(), 1, 16)]);
        assert_eq!(found(&anchors, &prompt[..15]), []);
    }

    #[test]
    fn another_life_begins_anew_and_an_older_one_is_not_heard() {
        let (anchors, prompt) = (Anchors::default(), names(1, 64));
        put(&anchors, "a", 2, &prompt);
        put(&anchors, "a", 3, &prompt[..16]);
        put(&anchors, "a", 2, &prompt);
        assert_eq!(found(&anchors, &prompt), [("a".into(), 3, 16)]);
    }

    #[test]
    fn what_is_taken_back_is_not_found() {
        let (anchors, prompt) = (Anchors::default(), names(1, 64));
        put(&anchors, "a", 1, &prompt);
        anchors.remove(&"a".into(), prompt[63]);
        assert_eq!(found(&anchors, &prompt), [("a".into(), 1, 48)]);
        for hash in Anchor::along(&prompt) {
            anchors.remove(&"a".into(), hash.hash);
        }
        assert!(anchors.is_empty());
        put(&anchors, "b", 1, &prompt);
        anchors.forget(&"b".into());
        assert!(anchors.is_empty());
    }

    #[test]
    fn nobody_is_found_for_what_was_another_pictures() {
        let (anchors, prompt) = (Anchors::default(), names(1, 64));
        put(&anchors, "a", 1, &prompt);
        anchors.replace(Picture::new());
        assert_eq!(found(&anchors, &prompt), []);
    }
}
