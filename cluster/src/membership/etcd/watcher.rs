//! Keeps the view of the members.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Event, EventType, WatchResponse, WatchStream};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::config::EtcdConfig;
use super::store::{Store, decode, etcd};
use crate::ClusterError;
use crate::backoff::Backoff;
use crate::clock;
use crate::membership::Members;
use crate::membership::view::View;

const FIRST_RETRY: Duration = Duration::from_millis(50);

/// The task behind a view.
pub(super) struct Watcher {
    config: Arc<EtcdConfig>,
    prefix: String,
    view: View,
    publish: watch::Sender<Arc<Members>>,
    /// Connections made so far; the first endpoint is drawn by lot.
    attempt: usize,
}

/// Why a watch ended without an error.
#[derive(Debug)]
struct Compacted;

// === impl Watcher ===

impl Watcher {
    pub(super) fn new(
        config: Arc<EtcdConfig>,
        publish: watch::Sender<Arc<Members>>,
        now: Instant,
    ) -> Self {
        let view = View::new(config.grace, now);
        let attempt = Backoff::seed() as usize >> 1;
        Self { prefix: config.workers_prefix(), config, view, publish, attempt }
    }

    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, self.config.retry_limit, Backoff::seed());
        loop {
            match self.session(&mut backoff).await {
                // History was cut before we had read it: read the present instead.
                Ok(Compacted) => debug!("watch compacted: taking a new snapshot"),
                Err(error) => {
                    if self.view.lost(clock::now()) {
                        warn!(%error, "etcd is away: serving on the last view");
                        self.publish();
                    }
                    // While etcd is away nobody is given up: nobody could come back.
                    tokio::time::sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// A snapshot, and the changes from there on.
    ///
    /// Every connection begins with a snapshot: an etcd that lost its data counts from the beginning,
    /// and a watch from a revision it has not reached would be silent for ever.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<Compacted, ClusterError> {
        self.attempt += 1;
        let mut store = Store::connect(&self.config, self.attempt).await?;
        let snapshot = store.snapshot(&self.prefix).await?;
        let from = snapshot.revision + 1;
        self.view.rebuild(snapshot.revision, snapshot.entries, clock::now());
        self.publish();
        info!(
            revision = from - 1,
            missing = self.view.missing(),
            members = self.publish.borrow().workers.len(),
            "watching the members"
        );
        backoff.reset();
        self.follow(&mut store, from).await
    }

    /// The changes from a revision on, for as long as the store tells them.
    async fn follow(&mut self, store: &mut Store, from: i64) -> Result<Compacted, ClusterError> {
        let mut changes = store.watch(&self.prefix, from).await?;
        while let Some(response) = self.next(&mut changes).await? {
            if response.canceled() && response.compact_revision() > 0 {
                return Ok(Compacted);
            }
            if response.canceled() {
                return Err(ClusterError::Etcd(response.cancel_reason().to_owned()));
            }
            self.apply(&response);
        }
        Err(ClusterError::Etcd("the watch ended".to_owned()))
    }

    /// The next changes; gives up workers whose grace ends while waiting.
    async fn next(
        &mut self,
        changes: &mut WatchStream,
    ) -> Result<Option<WatchResponse>, ClusterError> {
        loop {
            let expiry = self.view.next_expiry();
            tokio::select! {
                response = changes.message() => return response.map_err(|error| etcd(&error)),
                () = until(expiry) => self.expire(),
            }
        }
    }

    fn apply(&mut self, response: &WatchResponse) {
        let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision);
        for event in response.events() {
            self.apply_event(revision, event);
        }
        if !response.events().is_empty() {
            self.publish();
        }
    }

    fn apply_event(&mut self, revision: i64, event: &Event) {
        let Some(kv) = event.kv() else { return };
        match event.event_type() {
            EventType::Put => {
                if let Some((key, info)) = decode(kv.key(), kv.value()) {
                    self.view.put(revision, key, info, clock::now());
                }
            }
            EventType::Delete => {
                let key = String::from_utf8_lossy(kv.key());
                self.view.delete(revision, &key, clock::now());
            }
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
        let Compacted = watcher.follow(&mut store, 2).await.unwrap();
    }
}
