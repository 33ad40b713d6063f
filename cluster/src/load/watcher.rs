//! Puts together what membership and the members themselves tell.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use scheduler::{ClusterSnapshot, Load, NodeState, WorkerId, WorkerInfo, WorkerView};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::LoadConfig;
use super::member::{Member, Seen, Sighting};
use crate::Members;
use crate::clock;
use crate::rpc::Channels;

/// Sightings taken at once, so that a burst costs one snapshot.
const BATCH_MAX: usize = 256;

/// The task that owns the picture.
pub(super) struct Watcher {
    config: LoadConfig,
    channels: Channels,
    tasks: TaskTracker,
    stopped: CancellationToken,
    sightings: mpsc::Sender<Sighting>,
    tracked: BTreeMap<WorkerId, Tracked>,
}

/// A member, as far as it is known.
struct Tracked {
    /// What the placement sees; healthy from the first report on, while they come.
    view: WorkerView,
    /// Whether the view still has it.
    listed: bool,
    /// Ends its report stream.
    stop: CancellationToken,
}

/// What a change is worth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    /// Numbers: publish with the next lot.
    Load,
    /// Who is there and well: publish at once.
    Health,
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(
        config: LoadConfig,
        channels: Channels,
        tasks: TaskTracker,
        stopped: CancellationToken,
        sightings: mpsc::Sender<Sighting>,
    ) -> Self {
        Self { config, channels, tasks, stopped, sightings, tracked: BTreeMap::new() }
    }

    pub(super) async fn run(
        mut self,
        mut view: watch::Receiver<Arc<Members>>,
        mut inbox: mpsc::Receiver<Sighting>,
        publish: watch::Sender<Arc<ClusterSnapshot>>,
    ) {
        let stopped = self.stopped.clone();
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut due: Option<Instant> = None;
        let mut closed = false;
        view.mark_changed();
        loop {
            let news = tokio::select! {
                () = stopped.cancelled() => return,
                changed = view.changed(), if !closed => {
                    closed = changed.is_err();
                    let members = view.borrow_and_update().clone();
                    if closed { News::None } else { self.list(&members) }
                }
                _ = inbox.recv_many(&mut batch, BATCH_MAX) => self.take(&mut batch),
                () = until(due) => News::Health,
            };
            match news {
                News::None => {}
                News::Load => {
                    due.get_or_insert_with(|| clock::now() + self.config.gather);
                }
                News::Health => {
                    due = None;
                    publish.send_replace(Arc::new(self.snapshot()));
                }
            }
        }
    }

    /// Takes over a view of the members.
    fn list(&mut self, members: &Members) -> News {
        for tracked in self.tracked.values_mut() {
            tracked.listed = false;
        }
        for info in members.workers.values() {
            self.meet(info);
        }
        self.forget_where(|tracked| !tracked.listed && !tracked.view.healthy);
        News::Health
    }

    /// Takes over one member: a new one, a new life, or news of a known one.
    fn meet(&mut self, info: &WorkerInfo) {
        if let Some(tracked) = self.tracked.get_mut(&info.address.worker) {
            if tracked.view.info.address == info.address {
                tracked.listed = true;
                tracked.update(info);
                return;
            }
            if tracked.view.info.address.incarnation > info.address.incarnation {
                return;
            }
        }
        self.forget_where(|tracked| tracked.view.info.address.worker == info.address.worker);
        info!(worker = %info.address.worker, role = %info.role, uri = %info.address.uri, "member");
        let stop = self.stopped.child_token();
        let address = info.address.clone();
        let channel = self.channels.get(&address);
        let member = Member::new(address, channel, self.config.clone(), self.sightings.clone());
        let stopped = stop.clone();
        self.tasks.spawn(async move { stopped.run_until_cancelled_owned(member.run()).await });
        let tracked = Tracked::new(info, stop);
        self.tracked.insert(info.address.worker.clone(), tracked);
    }

    fn take(&mut self, batch: &mut Vec<Sighting>) -> News {
        let news = batch.drain(..).map(|sighting| self.see(sighting)).max();
        news.unwrap_or(News::None)
    }

    fn see(&mut self, Sighting { worker, incarnation, seen }: Sighting) -> News {
        let Some(tracked) = self.tracked.get_mut(&worker) else { return News::None };
        if tracked.view.info.address.incarnation != incarnation {
            return News::None;
        }
        let news = match seen {
            Seen::Report(state, load) => tracked.reported(state, load),
            Seen::Lost(why) => tracked.lost(&why),
        };
        if !tracked.listed && !tracked.view.healthy {
            self.forget_where(|tracked| tracked.view.info.address.worker == worker);
        }
        news
    }

    fn forget_where(&mut self, goes: impl Fn(&Tracked) -> bool) {
        let channels = &self.channels;
        self.tracked.retain(|worker, tracked| {
            let gone = goes(tracked);
            if gone {
                info!(%worker, "no longer a member");
                tracked.stop.cancel();
                channels.evict(&tracked.view.info.address.uri);
            }
            !gone
        });
    }

    fn snapshot(&self) -> ClusterSnapshot {
        let workers = self.tracked.values().map(|tracked| tracked.view.clone()).collect();
        ClusterSnapshot { workers }
    }
}

// === impl Tracked ===

impl Tracked {
    fn new(info: &WorkerInfo, stop: CancellationToken) -> Self {
        let view = WorkerView { healthy: false, ..WorkerView::new(Arc::new(info.clone())) };
        Self { view, listed: true, stop }
    }

    /// Takes what membership says; of the state, what the worker itself says is newer.
    fn update(&mut self, info: &WorkerInfo) {
        let state = if self.view.healthy { self.view.info.state } else { info.state };
        let info = WorkerInfo { state, ..info.clone() };
        if *self.view.info != info {
            self.view.info = Arc::new(info);
        }
    }

    fn reported(&mut self, state: NodeState, load: Load) -> News {
        let before = (self.view.healthy, self.view.info.state);
        self.view.observe(self.view.info.address.incarnation, load, clock::now());
        self.view.healthy = state != NodeState::Gone;
        if self.view.info.state != state {
            Arc::make_mut(&mut self.view.info).state = state;
        }
        if before == (self.view.healthy, state) {
            return News::Load;
        }
        info!(worker = %self.view.info.address.worker, ?state, "member reports");
        News::Health
    }

    fn lost(&mut self, why: &str) -> News {
        if !self.view.healthy {
            return News::None;
        }
        self.view.healthy = false;
        warn!(worker = %self.view.info.address.worker, why, "member lost");
        News::Health
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
