//! Keeps one worker's entry in etcd, come what may.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::Anchor;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use words::{Incarnation, NodeState, WorkerInfo};

use super::config::EtcdConfig;
use super::store::{Lease, Store, Written};
use super::teller::Teller;
use super::trouble::Troubles;
use crate::ClusterError;
use crate::clock;
use crate::membership::Standing;
use crate::retry::backoff::Backoff;

const FIRST_RETRY: Duration = Duration::from_millis(100);

/// What the owner of a registration wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// The state to publish.
    pub(super) state: NodeState,
    /// To be taken back.
    pub(super) leave: bool,
}

/// What comes from the owner of a registration.
pub(super) struct Wishes {
    pub(super) wishes: watch::Receiver<Wish>,
    pub(super) hot: watch::Receiver<Arc<[Anchor]>>,
}

/// The task behind a registration.
pub(super) struct Registrar {
    config: Arc<EtcdConfig>,
    key: String,
    /// The identity, with the state as last wished.
    info: WorkerInfo,
    wishes: watch::Receiver<Wish>,
    standing: watch::Sender<Standing>,
    closing: CancellationToken,
    teller: Teller,
    /// Outlives a connection: a short outage need not cost a new lease.
    lease: Option<Lease>,
    /// Connections made so far; the first endpoint is drawn by lot.
    attempt: usize,
    /// A life with a higher number that stood there before this one was ever registered, and since
    /// when it has been seen.
    predecessor: Option<(Incarnation, Instant)>,
    /// Whether this life was registered once.
    has_stood: bool,
    troubles: Troubles,
}

/// What to do next.
enum Next {
    Write,
    Tell,
    Renew,
    Leave,
}

// === impl Registrar ===

impl Registrar {
    pub(super) fn new(
        config: Arc<EtcdConfig>,
        info: WorkerInfo,
        Wishes { wishes, hot }: Wishes,
        standing: watch::Sender<Standing>,
        closing: CancellationToken,
    ) -> Self {
        let key = format!("{}{}/{}", config.workers_prefix(), info.role, info.address.worker);
        let teller = Teller::new(&config, &info, key.clone(), hot);
        let attempt = Backoff::seed() as usize >> 1;
        Self {
            config,
            key,
            info,
            wishes,
            standing,
            closing,
            teller,
            lease: None,
            attempt,
            predecessor: None,
            has_stood: false,
            troubles: Troubles::default(),
        }
    }

    /// Runs until the entry is taken back or superseded.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, self.config.retry_limit, Backoff::seed());
        loop {
            let Err(error) = self.session().await else { return };
            if self.become_pending() {
                backoff.reset();
            }
            self.tell(&error);
            if !self.pause(backoff.delay()).await {
                // It can't be taken back now; the lease will end it.
                self.standing.send_replace(Standing::Left);
                return;
            }
        }
    }

    /// Tells of what keeps the entry from standing. That etcd is away is the watcher's to tell.
    fn tell(&mut self, error: &ClusterError) {
        let is_away = matches!(error, ClusterError::EtcdAway(_) | ClusterError::Closed);
        if !is_away && self.troubles.is_news(error, clock::now()) {
            warn!(key = %self.key, %error, "this worker can't be registered: trying on");
        } else {
            debug!(key = %self.key, %error, "still not registered");
        }
    }

    /// One connection's worth of keeping the entry up. Returns when there is nothing left to keep.
    async fn session(&mut self) -> Result<(), ClusterError> {
        self.attempt += 1;
        let mut store = self.unless_left(Store::connect(&self.config, self.attempt)).await?;
        let mut beat = interval(self.config.lease_ttl / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The first beat comes at once and makes the entry.
            match self.next(&mut beat).await {
                Next::Write => {
                    if !self.write(&mut store).await? {
                        return Ok(());
                    }
                }
                Next::Renew => {
                    if !self.renew(&mut store).await? {
                        return Ok(());
                    }
                }
                Next::Tell => {
                    if let Some(lease) = self.lease {
                        self.teller.write(&mut store, lease).await?;
                    }
                }
                Next::Leave => return self.leave(&mut store).await,
            }
        }
    }

    async fn next(&mut self, beat: &mut tokio::time::Interval) -> Next {
        tokio::select! {
            // A beat must not starve behind an owner who changes state all the time.
            biased;
            () = self.closing.cancelled() => Next::Leave,
            _ = beat.tick() => Next::Renew,
            changed = self.wishes.changed() => {
                let wish = *self.wishes.borrow_and_update();
                if changed.is_err() || wish.leave {
                    return Next::Leave;
                }
                self.info.state = wish.state;
                Next::Write
            }
            () = self.teller.due() => Next::Tell,
        }
    }

    /// Sees to it that the lease lives and the entry hangs on it. `false` if superseded.
    async fn renew(&mut self, store: &mut Store) -> Result<bool, ClusterError> {
        if let Some(lease) = self.lease
            && !store.renew(lease).await?
        {
            info!(key = %self.key, "the lease ended: taking another");
            self.lease = None;
        }
        // Checked, not assumed: the store may have been restored, the key deleted by hand, the entry damaged on
        // its way there.
        let held = match self.lease {
            Some(lease) => store.stands(&self.key, &self.info, lease).await?,
            None => false,
        };
        let registered = *self.standing.borrow() == Standing::Registered;
        if held && registered { Ok(true) } else { self.write(store).await }
    }

    /// Writes the entry as it should be. `false` if superseded.
    async fn write(&mut self, store: &mut Store) -> Result<bool, ClusterError> {
        self.info.state = self.wishes.borrow().state;
        let lease = match self.lease {
            Some(lease) => lease,
            None => self.unless_left(store.grant(self.config.lease_ttl_s())).await?,
        };
        self.lease = Some(lease);
        match store.write(&self.key, &self.info, lease).await? {
            Written::Done => {
                self.has_stood = true;
                self.troubles.end();
                self.standing.send_if_modified(|standing| {
                    std::mem::replace(standing, Standing::Registered) != Standing::Registered
                });
                Ok(true)
            }
            Written::Superseded(by) if !self.is_newer_life(by, clock::now()) => {
                info!(key = %self.key, incarnation = by.0, "waiting for an entry to end or to prove alive");
                Ok(true)
            }
            Written::Superseded(by) => {
                warn!(key = %self.key, incarnation = by.0, "a newer life took the entry");
                self.standing.send_replace(Standing::Superseded(by));
                drop(store.revoke(lease).await);
                Ok(false)
            }
            Written::LeaseEnded => {
                self.lease = None;
                Err(ClusterError::Etcd("the lease ended before the entry was written".to_owned()))
            }
        }
    }

    /// Whether the life that stands in the entry is newer than this one, or only has a higher number,
    /// from a clock that was set back since. It is newer if it took the entry from this one, and as
    /// good as newer if it outlives what a dead one's lease can be.
    fn is_newer_life(&mut self, by: Incarnation, now: Instant) -> bool {
        let since = match self.predecessor {
            Some((known, since)) if known == by => since,
            _ => now,
        };
        self.predecessor = Some((by, since));
        self.has_stood || now >= since + self.config.lease_ttl * 2
    }

    /// Takes the entry back: says goodbye first, so that nobody takes the deletion for an accident.
    async fn leave(&mut self, store: &mut Store) -> Result<(), ClusterError> {
        if let Some(lease) = self.lease {
            self.info.state = NodeState::Gone;
            if store.holds(&self.key, lease).await? {
                store.write(&self.key, &self.info, lease).await?;
                store.delete(&self.key, lease).await?;
            }
            store.revoke(lease).await?;
        }
        self.standing.send_replace(Standing::Left);
        Ok(())
    }

    /// Does what leads to a lease. Before there is one nothing has to be taken back, so an owner who
    /// leaves does not wait for an etcd that may be away.
    ///
    /// # Errors
    /// [`ClusterError::Closed`] if the owner leaves first.
    async fn unless_left<T>(
        &self,
        step: impl Future<Output = Result<T, ClusterError>>,
    ) -> Result<T, ClusterError> {
        if self.lease.is_some() {
            return step.await;
        }
        let mut wishes = self.wishes.clone();
        tokio::select! {
            done = step => done,
            _ = wishes.wait_for(|wish| wish.leave) => Err(ClusterError::Closed),
            () = self.closing.cancelled() => Err(ClusterError::Closed),
        }
    }

    /// Returns whether it was registered until now.
    fn become_pending(&self) -> bool {
        self.standing.send_if_modified(|standing| {
            std::mem::replace(standing, Standing::Pending) != Standing::Pending
        })
    }

    /// Waits before the next try. `false` if the owner leaves meanwhile.
    async fn pause(&mut self, delay: Duration) -> bool {
        let left = self.wishes.wait_for(|wish| wish.leave);
        tokio::select! {
            () = tokio::time::sleep(delay) => true,
            _ = left => false,
            () = self.closing.cancelled() => false,
        }
    }
}
