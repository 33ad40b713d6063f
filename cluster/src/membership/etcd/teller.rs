//! What a worker tells of its hot prefixes, and what of that is in etcd.
//!
//! Within a budget of keys and of writes: etcd is everybody's, and every write of it goes to disk on all its members. What is
//! hottest is written first; what isn't hot any more is taken back. All of it hangs on the worker's lease, and none is written
//! but while the worker's own entry stands.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kv_cache::{Anchor, BlockHash};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};
use words::{Incarnation, WorkerInfo};

use super::anchor_key::AnchorKey;
use super::config::EtcdConfig;
use super::store::{Lease, Store, Write};
use crate::ClusterError;
use crate::membership::anchors::{TOLD_MAX, Told};

/// Between two writes of a worker. Each is one transaction, so one write to disk.
const TURN: Duration = Duration::from_millis(500);
/// Keys of one write: 32 a second, so all of them take 8 seconds.
const TURN_KEYS: usize = 16;

/// Brings etcd to what a worker wants to be known of it.
pub(super) struct Teller {
    wanted: watch::Receiver<Arc<[Anchor]>>,
    /// What may be there; `true`: it is. In an order that a seed repeats.
    told: BTreeMap<BlockHash, bool>,
    /// The lease that `told` hangs on.
    lease: Option<Lease>,
    turns: Interval,
    prefix: String,
    /// The worker's own entry.
    entry: String,
    info: Names,
}

/// What goes into keys and values.
struct Names {
    fingerprint: String,
    worker: words::WorkerId,
    incarnation: Incarnation,
}

// === impl Teller ===

impl Teller {
    pub(super) fn new(
        config: &EtcdConfig,
        info: &WorkerInfo,
        entry: String,
        wanted: watch::Receiver<Arc<[Anchor]>>,
    ) -> Self {
        let mut turns = interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (told, prefix) = (BTreeMap::new(), config.prefixes_prefix());
        let info = Names {
            fingerprint: info.fingerprint.name(),
            worker: info.address.worker.clone(),
            incarnation: info.address.incarnation,
        };
        Self { wanted, told, lease: None, turns, prefix, entry, info }
    }

    /// Waits until there is something to write and it is time to.
    pub(super) async fn due(&mut self) {
        while self.changes().is_empty() {
            if self.wanted.changed().await.is_err() {
                // The owner leaves, which is told otherwise.
                std::future::pending::<()>().await;
            }
        }
        self.turns.tick().await;
    }

    /// Writes as much as a turn may.
    pub(super) async fn write(
        &mut self,
        store: &mut Store,
        lease: Lease,
    ) -> Result<(), ClusterError> {
        if self.lease.replace(lease) != Some(lease) {
            // What hung on another ends with that.
            self.told.clear();
        }
        let changes = self.changes();
        let keys = changes.iter().map(|change| self.write_of(change)).collect();
        // Whether an answer that doesn't come would have been a yes, nobody knows.
        self.told.extend(changes.iter().map(|change| (change.hash(), false)));
        if store.write_all(&self.entry, lease, keys).await? {
            changes.iter().for_each(|change| self.note(change));
        }
        Ok(())
    }

    /// The first of what is to be written: what is hot no more, as it counts for the budget, and then the hottest.
    fn changes(&self) -> Vec<Change> {
        let wanted = self.wanted.borrow();
        let wanted = &wanted[..wanted.len().min(TOLD_MAX)];
        let hot: HashSet<BlockHash> = wanted.iter().map(|anchor| anchor.hash).collect();
        let gone = self.told.keys().filter(|hash| !hot.contains(hash)).copied().map(Change::Gone);
        let is_told = |anchor: &&Anchor| self.told.get(&anchor.hash) == Some(&true);
        let hot = wanted.iter().filter(|anchor| !is_told(anchor)).copied().map(Change::Hot);
        gone.chain(hot).take(TURN_KEYS).collect()
    }

    fn write_of(&self, change: &Change) -> Write {
        let Names { fingerprint, worker, incarnation } = &self.info;
        let (fingerprint, worker) = (fingerprint.clone(), worker.clone());
        let key = AnchorKey { fingerprint, hash: change.hash(), worker };
        let value = match change {
            Change::Gone(_) => None,
            Change::Hot(Anchor { blocks, .. }) => {
                let told = Told { incarnation: *incarnation, blocks: *blocks };
                Some(serde_json::to_vec(&told).expect("two numbers are JSON"))
            }
        };
        Write { key: format!("{}{key}", self.prefix), value }
    }

    fn note(&mut self, change: &Change) {
        match change {
            Change::Gone(hash) => drop(self.told.remove(hash)),
            Change::Hot(anchor) => drop(self.told.insert(anchor.hash, true)),
        }
    }
}

/// A prefix that became hot, or isn't any more.
#[derive(Clone, Copy, Debug)]
enum Change {
    Hot(Anchor),
    Gone(BlockHash),
}

// === impl Change ===

impl Change {
    fn hash(&self) -> BlockHash {
        match self {
            Self::Hot(anchor) => anchor.hash,
            Self::Gone(hash) => *hash,
        }
    }
}
