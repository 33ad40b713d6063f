//! Membership in etcd: one key per worker, bound to a lease that its owner keeps alive.
//!
//! Keys are `/baton/{namespace}/workers/{role}/{id}`, values [`WorkerInfo`] as JSON with a seal. Where hot prefixes are is told by
//! `/baton/{namespace}/prefixes/{fingerprint}/{hash}/{id}`, values [`super::anchors::Told`] as JSON, on the same lease. Three kinds of
//! tasks do the work: a registrar per registration, a watcher per handle, and one of prefixes where somebody asks for them. Each owns its
//! connection and makes a new one when that fails, so nothing outlives an outage but what is wanted:
//! the identity to publish and the view to serve.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use kv_cache::Anchor;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use words::{NodeState, WorkerInfo};

use super::anchors::Anchors;
use super::{Entry, Members, Membership, Registration, Standing, check};
use crate::ClusterError;
use crate::clock;

mod anchor_key;
mod anchor_watcher;
mod config;
mod look;
mod registrar;
mod store;
mod teller;
mod trouble;
mod watcher;

pub use config::{Credentials, EtcdConfig, EtcdTls, IdentityFiles};
pub use look::{Look, ToldPrefix, look};
pub use store::{Odd, worker_of};

use anchor_watcher::AnchorWatcher;
use registrar::{Registrar, Wish, Wishes};
use watcher::Watcher;

/// How long [`Membership::close`] waits for entries to be removed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to the members of one namespace in etcd.
pub struct EtcdMembership {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<EtcdConfig>,
    view: watch::Receiver<Arc<Members>>,
    /// Once somebody asked for it.
    anchors: OnceLock<Anchors>,
    /// Cancelled by [`Membership::close`]: registrars take their entries back, the watcher stops.
    closing: CancellationToken,
    tasks: TaskTracker,
    /// Ends the tasks with the last handle and registration, closed or not.
    _stop: DropGuard,
}

struct EtcdEntry {
    wish: watch::Sender<Wish>,
    hot: watch::Sender<Arc<[Anchor]>>,
    standing: watch::Receiver<Standing>,
    patience: Duration,
    _inner: Arc<Inner>,
}

// === impl EtcdMembership ===

impl EtcdMembership {
    /// Starts to watch. etcd needn't be there: until it is, the view is empty and stale.
    ///
    /// # Errors
    /// [`ClusterError::Config`] for settings that can't work.
    pub fn connect(config: EtcdConfig) -> Result<Self, ClusterError> {
        config.validate()?;
        let config = Arc::new(config);
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let now = clock::now();
        let (publish, view) =
            watch::channel(Arc::new(Members { stale_since: Some(now), ..Members::default() }));
        let watcher = Watcher::new(config.clone(), publish, now);
        let stop = closing.clone();
        tasks.spawn(async move { stop.run_until_cancelled_owned(watcher.run()).await });
        let (anchors, _stop) = (OnceLock::new(), closing.clone().drop_guard());
        Ok(Self { inner: Arc::new(Inner { config, view, anchors, closing, tasks, _stop }) })
    }

    /// Waits for the first snapshot. Returns the view, current or not.
    pub async fn ready(&self, within: Duration) -> Arc<Members> {
        let mut view = self.view();
        let current = view.wait_for(|members| members.stale_since.is_none());
        if let Ok(Ok(members)) = timeout(within, current).await {
            return members.clone();
        }
        self.inner.view.borrow().clone()
    }
}

#[async_trait]
impl Membership for EtcdMembership {
    async fn register(&self, info: WorkerInfo) -> Result<Registration, ClusterError> {
        check(&info)?;
        if self.inner.closing.is_cancelled() {
            return Err(ClusterError::Closed);
        }
        let worker = info.address.worker.clone();
        let entry = EtcdEntry::spawn(&self.inner, info);
        let mut standing = entry.standing();
        let settled = standing.wait_for(|standing| *standing != Standing::Pending);
        match timeout(self.inner.config.register_patience, settled).await {
            Ok(Ok(standing)) => match *standing {
                Standing::Superseded(by) => return Err(ClusterError::Superseded { worker, by }),
                Standing::Left => return Err(ClusterError::Closed),
                Standing::Pending | Standing::Registered => {}
            },
            Ok(Err(_)) => return Err(ClusterError::Closed),
            Err(_) => {
                info!(%worker, "registration pending: routers that know this address find it meanwhile");
            }
        }
        Ok(Registration::new(worker, Box::new(entry)))
    }

    fn view(&self) -> watch::Receiver<Arc<Members>> {
        self.inner.view.clone()
    }

    fn anchors(&self) -> Anchors {
        self.inner.anchors.get_or_init(|| self.inner.watch_anchors()).clone()
    }

    async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        if timeout(CLOSE_TIMEOUT, self.inner.tasks.wait()).await.is_err() {
            warn!("closing the membership took too long: entries end with their leases");
        }
    }
}

// === impl Inner ===

impl Inner {
    fn watch_anchors(&self) -> Anchors {
        let (anchors, stop) = (Anchors::default(), self.closing.clone());
        let watcher = AnchorWatcher::new(self.config.clone(), anchors.clone());
        self.tasks.spawn(async move { stop.run_until_cancelled_owned(watcher.run()).await });
        anchors
    }
}

// === impl EtcdEntry ===

impl EtcdEntry {
    fn spawn(inner: &Arc<Inner>, info: WorkerInfo) -> Self {
        let (wish, wishes) = watch::channel(Wish { state: info.state, leave: false });
        let (hot, told) = watch::channel(Arc::default());
        let (publish, standing) = watch::channel(Standing::Pending);
        let (wishes, closing) = (Wishes { wishes, hot: told }, inner.closing.clone());
        let registrar = Registrar::new(inner.config.clone(), info, wishes, publish, closing);
        inner.tasks.spawn(registrar.run());
        // Leaving is three small requests; as long as one may take is enough for all.
        let patience = inner.config.request_timeout;
        Self { wish, hot, standing, patience, _inner: inner.clone() }
    }
}

#[async_trait]
impl Entry for EtcdEntry {
    fn update(&self, state: NodeState) {
        self.wish.send_if_modified(|wish| std::mem::replace(&mut wish.state, state) != state);
    }

    fn tell(&self, hot: Arc<[Anchor]>) {
        self.hot.send_if_modified(|before| {
            let is_news = *before != hot;
            *before = hot;
            is_news
        });
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    fn leave(&self) {
        self.wish.send_if_modified(|wish| !std::mem::replace(&mut wish.leave, true));
    }

    async fn left(&self) {
        let mut standing = self.standing();
        let done = standing.wait_for(|at| matches!(at, Standing::Left | Standing::Superseded(_)));
        // An error means that the registrar has ended: as good as left.
        drop(timeout(self.patience, done).await);
    }
}
