//! Keys, revisions and leases.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::proto::{PbEvent, PbKeyValue};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::checks::coverage::Coverage;

/// What etcd keeps on its disk. A clone is another handle to the same.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Content>>);

/// A running etcd's keys.
pub struct Store {
    disk: Disk,
    /// When each lease ends. A restart begins them anew.
    ends: BTreeMap<i64, Instant>,
    /// Told of each new revision.
    revisions: watch::Sender<i64>,
    coverage: Coverage,
}

/// What is on the disk.
#[derive(Clone, Default)]
struct Content {
    keys: BTreeMap<Vec<u8>, PbKeyValue>,
    /// Lengths of leases, in seconds.
    leases: BTreeMap<i64, i64>,
    revision: i64,
    last_lease: i64,
    history: Vec<(i64, PbEvent)>,
}

// === impl Disk ===

impl Disk {
    /// Loses everything.
    pub fn wipe(&self) {
        *self.0.lock() = Content::default();
    }

    /// Goes back to what was there at an earlier time.
    pub fn restore(&self, backup: &Self) {
        let content = backup.0.lock().clone();
        *self.0.lock() = content;
    }

    /// A copy of what is there now.
    #[must_use]
    pub fn backup(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }
}

// === impl Store ===

impl Store {
    /// Opens what is on a disk; leases get their whole time again.
    #[must_use]
    pub fn open(disk: Disk, coverage: Coverage) -> Self {
        let content = disk.0.lock().clone();
        let now = Instant::now();
        let end = |(&id, &ttl): (&i64, &i64)| (id, now + seconds(ttl));
        let ends = content.leases.iter().map(end).collect();
        Self { disk, ends, revisions: watch::Sender::new(content.revision.max(1)), coverage }
    }

    /// The latest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.disk.0.lock().revision.max(1)
    }

    /// Wakes at each new revision.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.revisions.subscribe()
    }

    /// One key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<PbKeyValue> {
        self.disk.0.lock().keys.get(key).cloned()
    }

    /// The keys of a range: from `key` to before `end`; just `key` where `end` is empty.
    #[must_use]
    pub fn range(&self, key: &[u8], end: &[u8]) -> Vec<PbKeyValue> {
        let content = self.disk.0.lock();
        let found = content.keys.values().filter(|it| is_within(&it.key, key, end));
        found.cloned().collect()
    }

    /// Events of a range from a revision on.
    #[must_use]
    pub fn events(&self, key: &[u8], end: &[u8], from: i64) -> Vec<PbEvent> {
        let content = self.disk.0.lock();
        let since = content.history.iter().filter(|(revision, _)| *revision >= from);
        let wanted =
            |event: &PbEvent| event.kv.as_ref().is_some_and(|kv| is_within(&kv.key, key, end));
        since.map(|(_, event)| event.clone()).filter(wanted).collect()
    }

    /// Writes a key. `false` if the lease isn't there.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>, lease: i64) -> bool {
        if lease != 0 && !self.ends.contains_key(&lease) {
            return false;
        }
        let mut content = self.disk.0.lock();
        content.revision = content.revision.max(1) + 1;
        let revision = content.revision;
        let before = content.keys.get(&key);
        let kv = PbKeyValue {
            create_revision: before.map_or(revision, |kv| kv.create_revision),
            version: before.map_or(1, |kv| kv.version + 1),
            mod_revision: revision,
            key: key.clone(),
            value,
            lease,
        };
        content.keys.insert(key, kv.clone());
        content.history.push((revision, PbEvent { r#type: 0, kv: Some(kv), prev_kv: None }));
        drop(content);
        self.revisions.send_replace(revision);
        true
    }

    /// Deletes the keys of a range; how many there were.
    pub fn delete(&mut self, key: &[u8], end: &[u8]) -> i64 {
        let found = self.range(key, end);
        self.delete_all(found)
    }

    fn delete_all(&mut self, found: Vec<PbKeyValue>) -> i64 {
        if found.is_empty() {
            return 0;
        }
        let count = found.len() as i64;
        let mut content = self.disk.0.lock();
        content.revision = content.revision.max(1) + 1;
        let revision = content.revision;
        for kv in found {
            content.keys.remove(&kv.key);
            let gone = PbKeyValue { key: kv.key, mod_revision: revision, ..PbKeyValue::default() };
            content.history.push((revision, PbEvent { r#type: 1, kv: Some(gone), prev_kv: None }));
        }
        drop(content);
        self.revisions.send_replace(revision);
        count
    }

    /// A new lease of some seconds.
    pub fn grant(&mut self, ttl: i64) -> i64 {
        let mut content = self.disk.0.lock();
        content.last_lease += 1;
        let id = content.last_lease;
        content.leases.insert(id, ttl);
        drop(content);
        self.ends.insert(id, Instant::now() + seconds(ttl));
        id
    }

    /// Renews a lease: its seconds, 0 if it has ended.
    pub fn renew(&mut self, id: i64) -> i64 {
        let ttl = self.disk.0.lock().leases.get(&id).copied().unwrap_or(0);
        if ttl > 0 {
            self.ends.insert(id, Instant::now() + seconds(ttl));
        }
        ttl
    }

    /// Ends a lease, and the keys that hang on it.
    pub fn revoke(&mut self, id: i64) {
        self.ends.remove(&id);
        let mut content = self.disk.0.lock();
        content.leases.remove(&id);
        let bound: Vec<_> = content.keys.values().filter(|kv| kv.lease == id).cloned().collect();
        drop(content);
        self.delete_all(bound);
    }

    /// Ends the leases whose time is up.
    pub fn expire(&mut self) {
        let now = Instant::now();
        let ended: Vec<i64> =
            self.ends.iter().filter(|(_, end)| **end <= now).map(|(&id, _)| id).collect();
        self.coverage.add("lease expired", ended.len() as u64);
        ended.into_iter().for_each(|id| self.revoke(id));
    }
}

fn is_within(at: &[u8], key: &[u8], end: &[u8]) -> bool {
    if end.is_empty() { at == key } else { at >= key && at < end }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs())
}
