//! Keeps the view of the members.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Event, EventType, WatchResponse, WatchStream};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::config::EtcdConfig;
use super::store::{Odd, Snapshot, Store, worker_of};
use super::trouble::{Troubles, explain};
use crate::ClusterError;
use crate::clock;
use crate::membership::Members;
use crate::membership::view::View;
use crate::retry::backoff::Backoff;
use crate::throttled::Throttled;

const FIRST_RETRY: Duration = Duration::from_millis(50);
/// All members are read so often, whatever changes were told: a damaged word of the store's own (a revision, a
/// deletion's key) goes unseen. One read of the whole view a minute is nothing to a store.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The task behind a view.
pub(super) struct Watcher {
    config: Arc<EtcdConfig>,
    prefix: String,
    view: View,
    publish: watch::Sender<Arc<Members>>,
    /// Connections made so far; the first endpoint is drawn by lot.
    attempt: usize,
    /// When all members are read again.
    look_again: Instant,
    troubles: Troubles,
    /// Entries that are none: whoever can write to the store can write many.
    oddities: Throttled,
}

/// Why a watch ended without an error.
#[derive(Debug)]
enum Outdated {
    /// History was cut before it had been read.
    Compacted,
    /// A change could not be read as it came.
    Damaged,
    /// It is time to look again.
    Due,
}

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(
        config: Arc<EtcdConfig>,
        publish: watch::Sender<Arc<Members>>,
        now: Instant,
    ) -> Self {
        let view = View::new(config.grace, now);
        let attempt = Backoff::seed() as usize >> 1;
        let (prefix, troubles) = (config.workers_prefix(), Troubles::default());
        let (look_again, oddities) = (now + LOOK_AGAIN, Throttled::default());
        Self { prefix, config, view, publish, attempt, look_again, troubles, oddities }
    }

    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, self.config.retry_limit, Backoff::seed());
        loop {
            match self.session(&mut backoff).await {
                Ok(why) => {
                    // The present is read instead; not as often as somebody spoils it.
                    debug!(?why, "taking a new snapshot");
                    tokio::time::sleep(FIRST_RETRY).await;
                }
                Err(error) => {
                    if self.view.lost(clock::now()) {
                        self.publish();
                    }
                    self.tell(&error);
                    // While etcd is away nobody is given up: nobody could come back.
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    fn tell(&mut self, error: &ClusterError) {
        let etcd = self.config.endpoints.join(",");
        if !self.troubles.is_news(error, clock::now()) {
            debug!(etcd, %error, "still no etcd");
        } else if self.view.members().revision == 0 {
            warn!(etcd, %error, "no etcd yet, so nobody is known: trying on");
        } else {
            warn!(etcd, %error, "no etcd at the moment: serving on the last view, trying on");
        }
    }

    /// A snapshot, and the changes from there on.
    ///
    /// Every connection begins with a snapshot: an etcd that lost its data counts from the beginning,
    /// and a watch from a revision it has not reached would be silent for ever.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<Outdated, ClusterError> {
        self.attempt += 1;
        let mut store = Store::connect(&self.config, self.attempt).await?;
        let snapshot = store.snapshot(&self.prefix).await?;
        let from = snapshot.revision + 1;
        let is_news = self.is_behind();
        self.take(snapshot, clock::now());
        if is_news {
            self.announce(from - 1);
        }
        backoff.reset();
        self.troubles.end();
        self.follow(&mut store, from).await
    }

    /// Takes a whole snapshot. One with an entry that can't be read says nothing of who isn't there, and is
    /// repeated when that entry's owner has had the time to write it again.
    fn take(&mut self, snapshot: Snapshot, now: Instant) {
        let Snapshot { revision, entries, odd } = snapshot;
        let is_whole = odd.is_none();
        odd.iter().for_each(|odd| self.pass_over(odd));
        self.view.rebuild(revision, entries, is_whole, now);
        self.look_again = now + if is_whole { LOOK_AGAIN } else { self.config.lease_ttl };
        self.publish();
    }

    /// Whether what is published is old, or nothing yet.
    fn is_behind(&self) -> bool {
        let members = self.publish.borrow();
        members.stale_since.is_some() || members.revision == 0
    }

    fn announce(&self, revision: i64) {
        info!(
            revision,
            missing = self.view.missing(),
            members = self.publish.borrow().workers.len(),
            "watching the members"
        );
    }

    /// The changes from a revision on, for as long as the store tells them.
    async fn follow(&mut self, store: &mut Store, from: i64) -> Result<Outdated, ClusterError> {
        let mut changes = store.watch(&self.prefix, from).await?;
        while let Some(response) = self.next(&mut changes).await? {
            if let Some(why) = self.heed(&response)? {
                return Ok(why);
            }
        }
        Ok(Outdated::Due)
    }

    /// Takes what the watch says; if that ends it, why.
    fn heed(&mut self, response: &WatchResponse) -> Result<Option<Outdated>, ClusterError> {
        if response.canceled() && response.compact_revision() > 0 {
            return Ok(Some(Outdated::Compacted));
        }
        if response.canceled() {
            return Err(ClusterError::Etcd(response.cancel_reason().to_owned()));
        }
        Ok((!self.apply(response)).then_some(Outdated::Damaged))
    }

    /// The next changes, `None` once it is time to look again; gives up workers whose grace ends while waiting.
    async fn next(
        &mut self,
        changes: &mut WatchStream,
    ) -> Result<Option<WatchResponse>, ClusterError> {
        loop {
            let expiry = self.view.next_expiry();
            tokio::select! {
                response = changes.message() => {
                    let ended = || ClusterError::Etcd("the watch ended".to_owned());
                    return response.map_err(|error| explain(&error))?.ok_or_else(ended).map(Some);
                }
                () = until(expiry) => self.expire(),
                () = until(Some(self.look_again)) => return Ok(None),
            }
        }
    }

    /// Returns whether every event could be read.
    fn apply(&mut self, response: &WatchResponse) -> bool {
        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        let mut is_whole = true;
        for event in response.events() {
            is_whole &= self.apply_event(revision, event);
        }
        if !response.events().is_empty() {
            self.publish();
        }
        is_whole
    }

    fn apply_event(&mut self, revision: i64, event: &Event) -> bool {
        let Some(kv) = event.kv() else { return false };
        match event.event_type() {
            EventType::Put => match worker_of(kv.key(), kv.value()) {
                Ok((key, info)) => self.view.put(revision, key, info, clock::now()),
                Err(odd) => {
                    self.pass_over(&odd);
                    return false;
                }
            },
            EventType::Delete => {
                let key = String::from_utf8_lossy(kv.key());
                self.view.delete(revision, &key, clock::now());
            }
        }
        true
    }

    fn pass_over(&mut self, odd: &Odd) {
        if let Some(times) = self.oddities.note() {
            warn!(times, %odd, "passed over what is no worker's entry in etcd");
        }
    }

    fn expire(&mut self) {
        if self.view.expire(clock::now()) {
            info!("gave up workers that did not come back after the outage");
            self.publish();
        }
    }

    fn publish(&self) {
        let members = self.view.members();
        self.publish.send_if_modified(|view| {
            let news = **view != members;
            if news {
                *view = Arc::new(members);
            }
            news
        });
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Etcd;

    #[tokio::test]
    async fn a_watch_from_a_compacted_revision_asks_for_a_new_snapshot() {
        let etcd = Etcd::start().await;
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        for n in 0..10 {
            client.put("/elsewhere", n.to_string(), None).await.unwrap();
        }
        client.compact(8, None).await.unwrap();
        let config = Arc::new(etcd.config());
        let mut store = Store::connect(&config, 0).await.unwrap();
        let (publish, _view) = watch::channel(Arc::default());
        let mut watcher = Watcher::new(config, publish, Instant::now());
        let why = watcher.follow(&mut store, 2).await.unwrap();
        assert!(matches!(why, Outdated::Compacted), "{why:?}");
    }
}
