//! Puts together what membership and the members themselves tell.
//!
//! Every life of a worker that anybody tells of is watched, and the one that is well counts; of several
//! that are, the newest. So it does not matter whose word is old: membership's after an outage, or an
//! incarnation that was made while a clock was wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use scheduler::{ClusterSnapshot, WorkerView};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;
use words::{Life, WorkerId, WorkerInfo};

use super::LoadConfig;
use super::member::{Member, Seen, Sighting};
use super::tracked::{News, Tracked};
use crate::Members;
use crate::clock;
use crate::rpc::Channels;

/// Sightings taken at once, so that a burst costs one snapshot.
const BATCH_MAX: usize = 256;
/// Addresses of workers that left, to be looked at again while membership is away: enough for a
/// rolling restart, few enough to call without end.
const DEPARTED_MAX: usize = 64;

/// The task that owns the picture.
pub(super) struct Watcher {
    config: LoadConfig,
    channels: Channels,
    tasks: TaskTracker,
    stopped: CancellationToken,
    sightings: mpsc::Sender<Sighting>,
    tracked: BTreeMap<Life, Tracked>,
    /// Whether membership can't tell who is there.
    stale: bool,
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
        let tracked = BTreeMap::new();
        Self { config, channels, tasks, stopped, sightings, tracked, stale: true }
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
        self.stale = members.stale_since.is_some();
        let now = clock::now();
        let lives: BTreeMap<Life, &WorkerInfo> =
            members.lives().map(|info| (info.address.life(), info)).collect();
        for (life, tracked) in &mut self.tracked {
            if tracked.listed && !lives.contains_key(life) {
                tracked.listed = false;
                tracked.depart_if_unknown(now);
            }
        }
        for info in lives.into_values() {
            self.meet(info).list(info);
        }
        self.tidy(now);
        News::Health
    }

    /// The life that `info` tells of, from now on if it is new.
    fn meet(&mut self, info: &WorkerInfo) -> &mut Tracked {
        self.tracked.entry(info.address.life()).or_insert_with_key(|life| {
            info!(%life, role = %info.role, uri = %info.address.uri, "member");
            Tracked::new(info.clone())
        })
    }

    fn take(&mut self, batch: &mut Vec<Sighting>) -> News {
        let news = batch.drain(..).map(|sighting| self.see(sighting)).max();
        let news = news.unwrap_or(News::None);
        if news == News::Health {
            self.tidy(clock::now());
        }
        news
    }

    fn see(&mut self, Sighting { life, seen }: Sighting) -> News {
        let Some(tracked) = self.tracked.get_mut(&life) else { return News::None };
        match seen {
            Seen::Report(state, load) => tracked.reported(state, load),
            Seen::Lost(why) => tracked.lost(&why),
            Seen::Another(info) => {
                self.meet(&info);
                News::Health
            }
        }
    }

    /// Lets go of whom there is no reason to follow, and follows the others.
    fn tidy(&mut self, now: Instant) {
        self.forget(now);
        let (channels, stale) = (&self.channels, self.stale);
        for tracked in self.tracked.values_mut() {
            let info = &*tracked.view.info;
            match (&tracked.stop, tracked.departed.is_none() || stale) {
                (None, true) => {
                    let stop = self.stopped.child_token();
                    let (channels, config) = (channels.clone(), self.config.clone());
                    let member = Member::new(info, channels, config, self.sightings.clone());
                    self.tasks.spawn(stop.clone().run_until_cancelled_owned(member.run()));
                    tracked.stop = Some(stop.drop_guard());
                }
                (Some(_), false) => {
                    tracked.stop = None;
                    self.config.prefixes.iter().for_each(|it| it.forget(&info.address.life()));
                    channels.evict(&info.address.uri);
                }
                _ => {}
            }
        }
    }

    /// Forgets those that left: when another life has taken their place, after a time, and the
    /// earliest when they are many.
    fn forget(&mut self, now: Instant) {
        let known = self.tracked.values().filter(|tracked| tracked.departed.is_none());
        let known: BTreeSet<(WorkerId, String)> = known
            .map(|tracked| &tracked.view.info.address)
            .map(|address| (address.worker.clone(), address.uri.clone()))
            .collect();
        let mut departed: Vec<Instant> = self.tracked.values().filter_map(|t| t.departed).collect();
        departed.sort_unstable();
        let earliest = departed.len().checked_sub(DEPARTED_MAX).map(|at| departed[at]);
        let (channels, remember) = (&self.channels, self.config.remember);
        self.tracked.retain(|life, tracked| {
            let Some(at) = tracked.departed else { return true };
            let uri = &tracked.view.info.address.uri;
            let replaced = known.iter().any(|(worker, _)| *worker == life.worker);
            let goes =
                replaced || now >= at + remember || earliest.is_some_and(|earliest| at < earliest);
            if goes {
                self.config.prefixes.iter().for_each(|it| it.forget(life));
            }
            if goes && !known.iter().any(|(_, taken)| taken == uri) {
                channels.evict(uri);
            }
            !goes
        });
    }

    /// Each worker in the life that counts.
    fn snapshot(&self) -> ClusterSnapshot {
        let mut workers: Vec<WorkerView> = Vec::with_capacity(self.tracked.len());
        // In the order of workers, and of each worker's lives from old to new.
        for tracked in self.tracked.values().filter(|tracked| tracked.departed.is_none()) {
            let view = &tracked.view;
            match workers.last_mut() {
                Some(last) if last.info.address.worker == view.info.address.worker => {
                    if view.healthy || !last.healthy {
                        *last = view.clone();
                    }
                }
                _ => workers.push(view.clone()),
            }
        }
        ClusterSnapshot { workers }
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
