//! What is in etcd, for operators.

use words::{WorkerId, WorkerInfo};

use super::anchor_key::AnchorKey;
use super::config::EtcdConfig;
use super::store::{Snapshot, Store};
use crate::ClusterError;

/// What a namespace holds at one moment.
#[derive(Debug)]
pub struct Look {
    /// Workers, by key: role, then id.
    pub workers: Vec<WorkerInfo>,
    /// Where prefixes are, by key: fingerprint, hash, worker.
    pub prefixes: Vec<ToldPrefix>,
    /// Keys of neither, or with a value that can't be read.
    pub odd: usize,
}

/// A prefix that a worker tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldPrefix {
    /// The name of what it computes with.
    pub fingerprint: String,
    /// The name of the prefix' last block.
    pub hash: kv_cache::BlockHash,
    /// Who.
    pub worker: WorkerId,
    /// Blocks of the prefix.
    pub blocks: u32,
}

/// Reads all that is in a namespace.
///
/// # Errors
/// [`ClusterError`] if etcd isn't there, or doesn't let us.
pub async fn look(config: &EtcdConfig) -> Result<Look, ClusterError> {
    config.validate()?;
    let mut store = Store::connect(config, 0).await?;
    let Snapshot { entries, odd, .. } = store.snapshot(&config.workers_prefix()).await?;
    let workers = entries.into_iter().map(|(_, info)| info).collect();
    let mut look = Look { workers, prefixes: Vec::new(), odd: usize::from(odd.is_some()) };
    let prefix = config.prefixes_prefix();
    let read = |key: &[u8], value: &[u8]| match told_prefix(&prefix, key, value) {
        Some(told) => look.prefixes.push(told),
        None => look.odd += 1,
    };
    store.each(&prefix, read).await?;
    Ok(look)
}

fn told_prefix(prefix: &str, key: &[u8], value: &[u8]) -> Option<ToldPrefix> {
    let AnchorKey { fingerprint, hash, worker } = AnchorKey::read(prefix, key).ok()?;
    let blocks = AnchorKey::told(value).ok()?.blocks;
    Some(ToldPrefix { fingerprint, hash, worker, blocks })
}
