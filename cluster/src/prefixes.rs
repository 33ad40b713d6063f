//! Which workers have which KV blocks, as they tell it: for whoever places requests.
//!
//! What a worker told last is known to be so (*exact*) while its report stream goes on; once that breaks it is a guess
//! (*coarse*) until the worker is heard again, and goes on from where it was. So is what the index couldn't take all of. A worker of
//! which there is no word is *off*, and what the store tells of its hottest prefixes is all there is to go by. Whatever is known here is an estimate to place by: workers look for themselves.

mod metrics;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::{BlockHash, Expected, Hits, Holder, PrefixIndex, Tier};
use parking_lot::RwLock;
use scheduler::placement::CachedTokens;
use scheduler::{ClusterSnapshot, WorkerView};
use words::{KvNews, KvNewsKind, Life};

use crate::membership::anchors::Anchors;

/// Blocks that are taken in under one lock: some tens of microseconds, which is what a placement may have to wait.
const TURN_BLOCKS: usize = 512;

/// What every worker has cached. A clone is the same one.
#[derive(Clone)]
pub struct Prefixes(Arc<RwLock<Picture>>);

/// How far a worker's part of the index can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Confidence {
    /// It is what the worker has, as of its last report.
    Exact,
    /// It was so, or is a part of what there is.
    Coarse,
    /// Nothing is known.
    Off,
}

/// News that don't fit what was told before.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Something is missing before them.
    #[error("news up to change {told} don't follow those up to {known}")]
    Gap {
        /// The last change that is known.
        known: u64,
        /// The last one of the news.
        told: u64,
    },
    /// After them there should be something else.
    #[error("{ours} blocks are known and don't add up to the {theirs} that the worker has")]
    Sum {
        /// Blocks that are known, once for each tier.
        ours: u64,
        /// Those of the worker.
        theirs: u64,
    },
}

struct Picture {
    index: PrefixIndex,
    /// What was sent to workers, and will be cached there before they can tell.
    expected: Expected,
    /// What is told of those that weren't heard themselves.
    anchors: Anchors,
    lives: HashMap<Life, Followed>,
    /// Whose, by holder.
    holders: Vec<Option<Life>>,
    /// News that didn't fit.
    unfit: u64,
}

/// One life's part.
#[derive(Debug)]
struct Followed {
    holder: Holder,
    /// The last change that is in the index; 0 while there is no whole snapshot.
    number: u64,
    confidence: Confidence,
    /// The number of a snapshot that isn't told to its end.
    being_told: Option<u64>,
    /// Whether some of it found no room.
    is_cut: bool,
}

/// Counts for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixStats {
    /// Bytes of the index.
    pub index_bytes: usize,
    /// Blocks that workers have, each once for every worker and tier.
    pub memberships: u64,
    /// Workers by confidence: exact, coarse, off.
    pub workers: [u32; 3],
    /// News that didn't fit what was told before.
    pub unfit: u64,
    /// Prefixes that the store tells of, each once for every worker.
    pub anchors: usize,
}

// === impl Prefixes ===

impl Prefixes {
    /// An empty picture that takes at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(RwLock::new(Picture {
            index: PrefixIndex::new(bytes_max),
            expected: Expected::default(),
            anchors: Anchors::default(),
            lives: HashMap::new(),
            holders: Vec::new(),
            unfit: 0,
        })))
    }

    /// With what the store tells, for workers that weren't heard yet.
    #[must_use]
    pub fn with_anchors(self, anchors: Anchors) -> Self {
        self.0.write().anchors = anchors;
        self
    }

    /// Says of every worker in `view` what it is likely to have of a prompt.
    ///
    /// - `names`: of the prompt's full blocks, from its start.
    /// - `block_tokens`: token slots of each.
    /// - `view`: its workers in the order of their ids.
    pub fn apply(
        &self,
        names: &[BlockHash],
        block_tokens: u32,
        view: &mut ClusterSnapshot,
        now: Instant,
    ) {
        let picture = self.0.read();
        let mut told = Hits::default();
        picture.index.find(names, &mut told);
        let expected = picture.expected.find(names, now);
        let anchored = picture.anchors.find(names);
        if told.as_slice().is_empty() && expected.is_empty() && anchored.is_empty() {
            return;
        }
        let tokens = |blocks: u32| blocks.saturating_mul(block_tokens);
        for hit in told.as_slice() {
            let Some(worker) = picture.worker(hit.holder, view) else { continue };
            let [device, host, disk] = Tier::ALL.map(|tier| tokens(hit.within(tier)));
            worker.cached = CachedTokens { device, host, disk };
        }
        for (holder, blocks) in expected {
            if let Some(worker) = picture.worker(holder, view) {
                worker.cached.raise(tokens(blocks));
            }
        }
        for (life, blocks) in anchored.iter().filter(|(life, _)| !picture.is_exact(life)) {
            if let Some(worker) = place(life, view) {
                worker.cached.raise(tokens(*blocks));
            }
        }
    }

    /// Notes that a prompt goes to a worker, which will have its blocks for some time after.
    ///
    /// - `lasts`: until the worker will have told of them, if it keeps them.
    pub fn expect(&self, life: &Life, names: &Arc<[BlockHash]>, now: Instant, lasts: Duration) {
        let mut picture = self.0.write();
        let Picture { expected, lives, .. } = &mut *picture;
        if let Some(followed) = lives.get(life) {
            expected.add(followed.holder, Arc::clone(names), now, lasts);
        }
    }

    /// What it takes, and how much of it can be trusted.
    #[must_use]
    pub fn stats(&self) -> PrefixStats {
        let picture = self.0.read();
        let mut workers = [0; 3];
        for followed in picture.lives.values() {
            workers[followed.confidence as usize] += 1;
        }
        PrefixStats {
            index_bytes: picture.index.bytes(),
            memberships: picture.index.memberships(),
            workers,
            unfit: picture.unfit,
            anchors: picture.anchors.len(),
        }
    }

    /// How far a worker's part can be trusted.
    #[must_use]
    pub fn confidence(&self, life: &Life) -> Confidence {
        self.0.read().lives.get(life).map_or(Confidence::Off, |followed| followed.confidence)
    }

    /// The last change of a life that is known; 0 for none.
    pub(crate) fn number(&self, life: &Life) -> u64 {
        self.0.read().lives.get(life).map_or(0, |followed| followed.number)
    }

    /// Takes in what a worker tells.
    ///
    /// # Errors
    /// [`Unfit`] if something is missing before it, or it doesn't come out as it should; then nothing is taken in but a snapshot.
    pub(crate) fn take(&self, life: &Life, news: &KvNews) -> Result<(), Unfit> {
        if !self.begin(life, news)? {
            return Ok(());
        }
        for run in &news.runs {
            for hashes in run.hashes.chunks(TURN_BLOCKS) {
                let mut picture = self.0.write();
                let Picture { index, lives, .. } = &mut *picture;
                let Some(followed) = lives.get_mut(life) else { return Ok(()) };
                let noted = index.note(followed.holder, hashes, run.tier, run.is_there);
                followed.is_cut |= noted.is_err();
            }
        }
        self.end(life, news)
    }

    /// Prepares for news; says whether there is anything to take in.
    fn begin(&self, life: &Life, news: &KvNews) -> Result<bool, Unfit> {
        let mut picture = self.0.write();
        let Picture { index, lives, holders, unfit, .. } = &mut *picture;
        if !lives.contains_key(life) {
            let Some(holder) = index.join() else { return Ok(false) };
            lives.insert(life.clone(), Followed::new(holder));
            let count = holders.len().max(holder.index() + 1);
            holders.resize(count, None);
            holders[holder.index()] = Some(life.clone());
        }
        let followed = lives.get_mut(life).expect("it is there now");
        let (known, told) = (followed.number, news.number);
        match news.kind {
            KvNewsKind::Snapshot { is_first: true, .. } => {
                index.clear(followed.holder);
                *followed = Followed { being_told: Some(told), ..Followed::new(followed.holder) };
                Ok(true)
            }
            KvNewsKind::Snapshot { .. } if followed.being_told == Some(told) => Ok(true),
            KvNewsKind::Changes if known > 0 && told <= known => {
                followed.confidence = followed.trusted();
                Ok(false)
            }
            KvNewsKind::Changes if known > 0 && told - news.blocks() as u64 == known => Ok(true),
            _ => {
                *unfit += 1;
                followed.begin_anew();
                Err(Unfit::Gap { known, told })
            }
        }
    }

    fn end(&self, life: &Life, news: &KvNews) -> Result<(), Unfit> {
        if matches!(news.kind, KvNewsKind::Snapshot { is_last: false, .. }) {
            return Ok(());
        }
        let mut picture = self.0.write();
        let Picture { index, lives, unfit, .. } = &mut *picture;
        let Some(followed) = lives.get_mut(life) else { return Ok(()) };
        (followed.number, followed.being_told) = (news.number, None);
        followed.confidence = followed.trusted();
        let ours = index.digest(followed.holder);
        match news.digest.filter(|theirs| !followed.is_cut && *theirs != ours) {
            None => Ok(()),
            Some(theirs) => {
                *unfit += 1;
                followed.begin_anew();
                Err(Unfit::Sum { ours: ours.blocks, theirs: theirs.blocks })
            }
        }
    }

    /// Notes that a worker isn't heard any more.
    pub(crate) fn lose(&self, life: &Life) {
        if let Some(followed) = self.0.write().lives.get_mut(life) {
            followed.confidence = followed.confidence.max(Confidence::Coarse);
        }
    }

    /// Forgets a life that is over.
    pub(crate) fn forget(&self, life: &Life) {
        let mut picture = self.0.write();
        if let Some(followed) = picture.lives.remove(life) {
            picture.index.leave(followed.holder);
            picture.holders[followed.holder.index()] = None;
            picture.expected.forget(followed.holder);
        }
    }
}

impl fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefixes").field("stats", &self.stats()).finish()
    }
}

// === impl Picture ===

impl Picture {
    /// The worker that a holder is, where `view` has it.
    fn worker<'a>(
        &self,
        holder: Holder,
        view: &'a mut ClusterSnapshot,
    ) -> Option<&'a mut WorkerView> {
        place(self.holders.get(holder.index())?.as_ref()?, view)
    }

    fn is_exact(&self, life: &Life) -> bool {
        self.lives.get(life).is_some_and(|it| it.confidence == Confidence::Exact)
    }
}

/// The worker in `view`, if it is in that life.
fn place<'a>(life: &Life, view: &'a mut ClusterSnapshot) -> Option<&'a mut WorkerView> {
    let at = view.workers.binary_search_by(|it| it.info.address.worker.cmp(&life.worker));
    let worker = &mut view.workers[at.ok()?];
    life.is_at(&worker.info.address).then_some(worker)
}

// === impl Followed ===

impl Followed {
    fn new(holder: Holder) -> Self {
        Self { holder, number: 0, confidence: Confidence::Off, being_told: None, is_cut: false }
    }

    /// Goes on with a snapshot, and is a guess until then.
    fn begin_anew(&mut self) {
        self.confidence = self.confidence.max(Confidence::Coarse);
        (self.number, self.being_told) = (0, None);
    }

    /// What it is worth while the worker is heard.
    fn trusted(&self) -> Confidence {
        if self.is_cut { Confidence::Coarse } else { Confidence::Exact }
    }
}

#[cfg(test)]
mod tests;
