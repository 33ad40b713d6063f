//! Keeps the picture of where hot prefixes are.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Event, EventType, WatchResponse};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};

use super::anchor_key::AnchorKey;
use super::config::EtcdConfig;
use super::store::Store;
use super::trouble::explain;
use crate::ClusterError;
use crate::membership::anchors::{Anchors, Picture};
use crate::retry::backoff::Backoff;

const FIRST_RETRY: Duration = Duration::from_millis(50);
/// As the members are, all are read again now and then.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// The task behind [`Anchors`]. That etcd is away, the watcher of members tells.
pub(super) struct AnchorWatcher {
    config: Arc<EtcdConfig>,
    prefix: String,
    anchors: Anchors,
    attempt: usize,
}

// === impl AnchorWatcher ===

impl AnchorWatcher {
    pub(super) fn new(config: Arc<EtcdConfig>, anchors: Anchors) -> Self {
        let (prefix, attempt) = (config.prefixes_prefix(), Backoff::seed() as usize >> 1);
        Self { config, prefix, anchors, attempt }
    }

    /// Runs until dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_RETRY, self.config.retry_limit, Backoff::seed());
        loop {
            match self.session(&mut backoff).await {
                Ok(()) => sleep(FIRST_RETRY).await,
                Err(error) => {
                    debug!(%error, "where prefixes are isn't told at the moment");
                    sleep(backoff.delay()).await;
                }
            }
        }
    }

    /// All that is told, and the changes from there on, until it is time to read all again.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<(), ClusterError> {
        self.attempt += 1;
        let mut store = Store::connect(&self.config, self.attempt).await?;
        let revision = self.read(&mut store).await?;
        backoff.reset();
        let mut changes = store.watch(&self.prefix, revision + 1).await?;
        let look_again = Instant::now() + LOOK_AGAIN;
        loop {
            let response = tokio::select! {
                response = changes.message() => response.map_err(|error| explain(&error))?,
                () = sleep_until(look_again) => return Ok(()),
            };
            match response {
                Some(response) if !response.canceled() => self.apply(&response),
                // History was cut, or the connection: the present is read instead.
                _ => return Ok(()),
            }
        }
    }

    async fn read(&mut self, store: &mut Store) -> Result<i64, ClusterError> {
        let mut picture = Picture::new();
        let revision = store
            .each(&self.prefix, |key, value| {
                let known = AnchorKey::read(&self.prefix, key);
                if let (Ok(key), Ok(told)) = (known, AnchorKey::told(value)) {
                    picture.put(&key.worker, told.incarnation, key.hash);
                }
            })
            .await?;
        self.anchors.replace(picture);
        info!(revision, prefixes = self.anchors.len(), "read where hot prefixes are");
        Ok(revision)
    }

    fn apply(&self, response: &WatchResponse) {
        response.events().iter().for_each(|event| self.apply_event(event));
    }

    /// What can't be read is passed over: it is read again some time, and nothing depends on it.
    fn apply_event(&self, event: &Event) {
        let Some(kv) = event.kv() else { return };
        let Ok(key) = AnchorKey::read(&self.prefix, kv.key()) else { return };
        match (event.event_type(), AnchorKey::told(kv.value())) {
            (EventType::Put, Ok(told)) => {
                self.anchors.put(&key.worker, told.incarnation, key.hash);
            }
            (EventType::Put, Err(_)) => {}
            (EventType::Delete, _) => self.anchors.remove(&key.worker, key.hash),
        }
    }
}
