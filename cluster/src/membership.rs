//! Who is there: workers publish themselves, routers watch.
//!
//! Membership finds workers; it does not judge them. Whether a member is alive is told by the data
//! plane ([`crate::load`]), so a view may be old without harm: it says so in
//! [`Members::stale_since`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::Uri;
use kv_cache::Anchor;
use tokio::sync::watch;
use words::{Incarnation, NodeState, Role, WorkerId, WorkerInfo};

use crate::ClusterError;
use crate::rpc::channels::check_uri;

pub mod anchors;
pub mod entry;
pub mod etcd;
pub mod memory;
mod view;

use anchors::Anchors;

/// A place where workers publish themselves and find each other.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Publishes a worker until the registration is dropped.
    ///
    /// Kept alive in the background. When the store is away, the registration stands as
    /// [`Standing::Pending`] and is made or renewed as soon as it is back, under the same identity.
    ///
    /// # Errors
    /// [`ClusterError::Superseded`] if a newer life of the worker is registered,
    /// [`ClusterError::Config`] for an id that can't be a key or a uri that
    /// can't be called, [`ClusterError::Closed`] after
    /// [`Membership::close`].
    async fn register(&self, info: WorkerInfo) -> Result<Registration, ClusterError>;

    /// The members as last seen; changes wake the receiver.
    fn view(&self) -> watch::Receiver<Arc<Members>>;

    /// Where hot prefixes are, as workers told last ([`Registration::tell`]); followed from the first call on.
    fn anchors(&self) -> Anchors;

    /// Removes what was registered through this handle and stops watching.
    async fn close(&self);
}

/// The members as last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Every member, by id, in its newest life.
    pub workers: BTreeMap<WorkerId, WorkerInfo>,
    /// Older lives that the store tells of while it lacks the newer one, which is not given up yet.
    /// Incarnations come from clocks, and a clock may have been set back: who of the two is there
    /// is for the data plane to say.
    pub older: Vec<WorkerInfo>,
    /// The store's revision that this view reflects; 0 before the first.
    pub revision: i64,
    /// Since when the store could not be heard; `None` while the view is current.
    pub stale_since: Option<Instant>,
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not in the store, or not known to be: trying.
    Pending,
    /// In the store.
    Registered,
    /// A newer life of the worker took its place; this one has stopped trying.
    Superseded(Incarnation),
    /// Taken back.
    Left,
}

/// A worker's entry, for as long as this lives. Dropping it removes the entry as best it can;
/// [`Registration::deregister`] waits until that is done.
#[must_use = "dropping the registration removes the worker"]
pub struct Registration {
    worker: WorkerId,
    entry: Box<dyn Entry>,
}

/// What an implementation keeps for one registration.
#[async_trait]
pub(crate) trait Entry: Send + Sync {
    /// Publishes a new state; at once or when the store is back.
    fn update(&self, state: NodeState);
    /// Says which hot prefixes the worker has, instead of those said before.
    fn tell(&self, hot: Arc<[Anchor]>);
    /// Where it stands.
    fn standing(&self) -> watch::Receiver<Standing>;
    /// Begins to remove the entry.
    fn leave(&self);
    /// Waits, not for ever, until the entry is removed.
    async fn left(&self);
}

// === impl Members ===

impl Members {
    /// Every life that is to be looked for.
    pub fn lives(&self) -> impl Iterator<Item = &WorkerInfo> {
        self.workers.values().chain(&self.older)
    }

    /// The members named for a phase.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &WorkerInfo> {
        self.workers.values().filter(move |info| info.role == role)
    }
}

// === impl Registration ===

impl Registration {
    pub(crate) fn new(worker: WorkerId, entry: Box<dyn Entry>) -> Self {
        Self { worker, entry }
    }

    /// Whose entry this is.
    #[must_use]
    pub fn worker(&self) -> &WorkerId {
        &self.worker
    }

    /// Publishes a new state. Does nothing if it is published already; survives an outage.
    pub fn update(&self, state: NodeState) {
        self.entry.update(state);
    }

    /// Tells the others which hot prefixes this worker has, for as long as it is registered: for routers that know nothing better yet.
    ///
    /// - `hot`: all of them, most important first. What the store has no room for is left out from the end.
    pub fn tell(&self, hot: Vec<Anchor>) {
        self.entry.tell(hot.into());
    }

    /// Where the registration stands; changes wake the receiver.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.entry.standing()
    }

    /// Removes the entry and waits until that is done, or until the store has had its chance.
    pub async fn deregister(self) {
        self.entry.leave();
        self.entry.left().await;
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.entry.leave();
    }
}

/// Refuses a name that can't be a worker's.
///
/// # Errors
/// [`ClusterError::Config`], saying what names may be.
pub fn check_id(id: &WorkerId) -> Result<(), ClusterError> {
    let id: &str = &id.0;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if id.is_empty() || id.len() > 253 || !id.chars().all(plain) {
        let want = "want 1 to 253 of letters, digits, `-`, `_`, `.` and `:`";
        return Err(ClusterError::Config(format!("worker id {id:?}: {want}")));
    }
    Ok(())
}

/// Refuses a worker that can't be found under its key or its address.
pub(crate) fn check(info: &WorkerInfo) -> Result<(), ClusterError> {
    check_id(&info.address.worker)?;
    check_uri(&info.address.uri)?;
    let host = info.address.uri.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    let ip = host.and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    if ip.is_some_and(|ip| ip.is_unspecified()) {
        return Err(ClusterError::Config(format!(
            "nobody can call {}: say with --advertise-host by which host others reach this one",
            info.address.uri
        )));
    }
    Ok(())
}
