//! Membership within one process: for a laptop, and for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use kv_cache::Anchor;
use parking_lot::Mutex;
use tokio::sync::watch;
use words::{NodeState, WorkerId, WorkerInfo};

use super::anchors::{Anchors, TOLD_MAX};
use super::{Entry, Members, Membership, Registration, Standing, check};
use crate::ClusterError;
use crate::clock;

/// Members of one process. A clone is another node's handle to the same store.
pub struct MemoryMembership {
    store: Arc<Store>,
    /// What was registered through this handle, for [`Membership::close`].
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    entries: Vec<(WorkerId, u64)>,
    closed: bool,
}

struct Store {
    state: Mutex<State>,
    view: watch::Sender<Arc<Members>>,
    anchors: Anchors,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<WorkerId, Registered>,
    revision: i64,
    last_serial: u64,
    away_since: Option<Instant>,
}

struct Registered {
    info: WorkerInfo,
    serial: u64,
    standing: watch::Sender<Standing>,
}

struct MemoryEntry {
    store: Arc<Store>,
    worker: WorkerId,
    serial: u64,
    standing: watch::Receiver<Standing>,
}

// === impl MemoryMembership ===

impl Default for MemoryMembership {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for MemoryMembership {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), own: Mutex::default() }
    }
}

impl MemoryMembership {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let view = watch::Sender::new(Arc::default());
        let store = Arc::new(Store { state: Mutex::default(), view, anchors: Anchors::default() });
        Self { store, own: Mutex::default() }
    }

    /// Plays a store that is away: the view is served on as it was and marked stale, changes are
    /// seen when it is back.
    pub fn set_away(&self, away: bool) {
        self.store.change(|state| state.away_since = away.then(clock::now));
    }

    /// Plays the end of a lease: the worker's entry goes, though nobody took it back.
    pub fn expire(&self, worker: &WorkerId) {
        self.store.change(|state| drop(state.entries.remove(worker)));
        self.store.anchors.forget(worker);
    }
}

#[async_trait]
impl Membership for MemoryMembership {
    async fn register(&self, info: WorkerInfo) -> Result<Registration, ClusterError> {
        check(&info)?;
        let mut own = self.own.lock();
        if own.closed {
            return Err(ClusterError::Closed);
        }
        let worker = info.address.worker.clone();
        let (standing, receiver) = watch::channel(Standing::Registered);
        let serial = self.store.change(|state| state.insert(info, standing))?;
        self.store.anchors.forget(&worker);
        own.entries.push((worker.clone(), serial));
        let store = self.store.clone();
        let entry = MemoryEntry { store, worker: worker.clone(), serial, standing: receiver };
        Ok(Registration::new(worker, Box::new(entry)))
    }

    fn view(&self) -> watch::Receiver<Arc<Members>> {
        self.store.view.subscribe()
    }

    fn anchors(&self) -> Anchors {
        self.store.anchors.clone()
    }

    async fn close(&self) {
        let entries = {
            let mut own = self.own.lock();
            own.closed = true;
            std::mem::take(&mut own.entries)
        };
        for (worker, serial) in entries {
            self.store.remove(&worker, serial);
        }
    }
}

// === impl Store ===

impl Store {
    /// Changes the state and publishes it, in one step.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let done = change(&mut state);
        state.revision += 1;
        let frozen = state.away_since.map(|since| {
            let last = self.view.borrow();
            Members { stale_since: Some(since), ..Members::clone(&last) }
        });
        let members = frozen.unwrap_or_else(|| state.members());
        self.view.send_if_modified(|view| {
            let news = view.workers != members.workers || view.stale_since != members.stale_since;
            *view = Arc::new(members);
            news
        });
        done
    }

    fn remove(&self, worker: &WorkerId, serial: u64) {
        if self.change(|state| state.remove(worker, serial)) {
            self.anchors.forget(worker);
        }
    }

    fn tell(&self, worker: &WorkerId, serial: u64, hot: &[Anchor]) {
        // Held, so that nobody leaves meanwhile.
        let state = self.state.lock();
        let entry = state.entries.get(worker).filter(|entry| entry.serial == serial);
        let Some(incarnation) = entry.map(|entry| entry.info.address.incarnation) else { return };
        self.anchors.forget(worker);
        for anchor in &hot[..hot.len().min(TOLD_MAX)] {
            self.anchors.put(worker, incarnation, anchor.hash);
        }
    }
}

// === impl State ===

impl State {
    fn insert(
        &mut self,
        info: WorkerInfo,
        standing: watch::Sender<Standing>,
    ) -> Result<u64, ClusterError> {
        let worker = info.address.worker.clone();
        let incarnation = info.address.incarnation;
        if let Some(other) = self.entries.get(&worker) {
            let by = other.info.address.incarnation;
            if by > incarnation {
                return Err(ClusterError::Superseded { worker, by });
            }
            other.standing.send_replace(Standing::Superseded(incarnation));
        }
        self.last_serial += 1;
        let serial = self.last_serial;
        self.entries.insert(worker, Registered { info, serial, standing });
        Ok(serial)
    }

    fn update(&mut self, worker: &WorkerId, serial: u64, state: NodeState) {
        if let Some(entry) = self.entries.get_mut(worker).filter(|entry| entry.serial == serial) {
            entry.info.state = state;
        }
    }

    /// Says whether it was there.
    fn remove(&mut self, worker: &WorkerId, serial: u64) -> bool {
        let is_there = self.entries.get(worker).is_some_and(|entry| entry.serial == serial);
        if is_there && let Some(entry) = self.entries.remove(worker) {
            entry.standing.send_replace(Standing::Left);
        }
        is_there
    }

    fn members(&self) -> Members {
        let workers =
            self.entries.iter().map(|(id, entry)| (id.clone(), entry.info.clone())).collect();
        Members { workers, older: Vec::new(), revision: self.revision, stale_since: None }
    }
}

// === impl MemoryEntry ===

#[async_trait]
impl Entry for MemoryEntry {
    fn update(&self, state: NodeState) {
        self.store.change(|store| store.update(&self.worker, self.serial, state));
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    fn tell(&self, hot: Arc<[Anchor]>) {
        self.store.tell(&self.worker, self.serial, &hot);
    }

    fn leave(&self) {
        self.store.remove(&self.worker, self.serial);
    }

    async fn left(&self) {}
}
