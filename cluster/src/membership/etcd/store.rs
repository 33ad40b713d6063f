//! One connection to etcd, in the words of membership. Every request has a time limit.

use std::future::Future;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, LeaseGrantResponse, PutOptions,
    Txn, TxnOp, WatchOptions, WatchStream,
};
use scheduler::{Incarnation, WorkerInfo};
use tokio::time::timeout;
use tonic::Code;
use tracing::warn;

use super::config::EtcdConfig;
use super::trouble::{explain, late};
use crate::ClusterError;
use crate::membership::entry;
use crate::rpc::channels;

/// Tries at a write that others keep changing under us. Two lives of one worker are two writers.
const WRITE_ATTEMPTS: usize = 8;

/// Room for a snapshot of tens of thousands of workers, where the client's default ends at 4 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A connection to etcd. Dropped after any error: the next one starts clean.
pub(super) struct Store {
    client: Client,
    request_timeout: Duration,
}

/// A lease's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease(i64);

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It stands.
    Done,
    /// A newer life of the worker stands there.
    Superseded(Incarnation),
    /// The lease it was to be bound to has ended.
    LeaseEnded,
}

/// The workers at one revision.
pub(super) struct Snapshot {
    pub(super) revision: i64,
    pub(super) entries: Vec<(String, WorkerInfo)>,
    /// Whether every entry there was one.
    pub(super) is_whole: bool,
}

// === impl Store ===

impl Store {
    /// Connects to one endpoint, a different one with each attempt: a client that balances over all
    /// would hand every other request to a member that is down.
    pub(super) async fn connect(config: &EtcdConfig, attempt: usize) -> Result<Self, ClusterError> {
        let endpoint = &config.endpoints[attempt % config.endpoints.len()];
        let client = within(
            config.request_timeout,
            "connecting to etcd",
            client(config, config.options()?, endpoint),
        )
        .await?;
        Ok(Self { client, request_timeout: config.request_timeout })
    }

    pub(super) async fn grant(&mut self, ttl_s: i64) -> Result<Lease, ClusterError> {
        let grant = self.client.lease_grant(ttl_s, None);
        let granted: LeaseGrantResponse =
            within(self.request_timeout, "granting a lease", grant).await?;
        Ok(Lease(granted.id()))
    }

    /// Renews a lease. `false` if it has ended.
    pub(super) async fn renew(&mut self, lease: Lease) -> Result<bool, ClusterError> {
        let renew = self.client.lease_keep_alive(lease.0);
        match timeout(self.request_timeout, renew).await {
            Ok(Ok(_)) => Ok(true),
            // What the client makes of an answer with a time to live of 0.
            Ok(Err(Error::LeaseKeepAliveError(_))) => Ok(false),
            Ok(Err(error)) => Err(explain(&error)),
            Err(_) => Err(late(self.request_timeout, "renewing a lease")),
        }
    }

    pub(super) async fn revoke(&mut self, lease: Lease) -> Result<(), ClusterError> {
        let revoke = self.client.lease_revoke(lease.0);
        within(self.request_timeout, "revoking a lease", revoke).await.map(drop)
    }

    /// Whether the key is there and bound to the lease.
    pub(super) async fn holds(&mut self, key: &str, lease: Lease) -> Result<bool, ClusterError> {
        let bound = Txn::new().when([Compare::lease(key, CompareOp::Equal, lease.0)]);
        let answer =
            within(self.request_timeout, "checking an entry", self.client.txn(bound)).await?;
        Ok(answer.succeeded())
    }

    /// Whether the key is there as this worker's entry, and bound to the lease. What was damaged on its way there
    /// is another.
    pub(super) async fn stands(
        &mut self,
        key: &str,
        info: &WorkerInfo,
        lease: Lease,
    ) -> Result<bool, ClusterError> {
        let same = Txn::new().when([
            Compare::lease(key, CompareOp::Equal, lease.0),
            Compare::value(key, CompareOp::Equal, encode(info)?),
        ]);
        let answer =
            within(self.request_timeout, "checking an entry", self.client.txn(same)).await?;
        Ok(answer.succeeded())
    }

    /// Writes a worker's entry, unless a newer life of it is there.
    pub(super) async fn write(
        &mut self,
        key: &str,
        info: &WorkerInfo,
        lease: Lease,
    ) -> Result<Written, ClusterError> {
        let value = encode(info)?;
        for _ in 0..WRITE_ATTEMPTS {
            let (revision, other) = self.read(key).await?;
            if let Some(by) = other.filter(|by| *by > info.address.incarnation) {
                return Ok(Written::Superseded(by));
            }
            let put = TxnOp::put(key, value.clone(), Some(PutOptions::new().with_lease(lease.0)));
            let unchanged = Compare::mod_revision(key, CompareOp::Equal, revision);
            let txn = self.client.txn(Txn::new().when([unchanged]).and_then([put]));
            match timeout(self.request_timeout, txn).await {
                Ok(Ok(answer)) if answer.succeeded() => return Ok(Written::Done),
                Ok(Ok(_)) => {}
                Ok(Err(Error::GRpcStatus(status))) if status.code() == Code::NotFound => {
                    return Ok(Written::LeaseEnded);
                }
                Ok(Err(error)) => return Err(explain(&error)),
                Err(_) => return Err(late(self.request_timeout, "writing an entry")),
            }
        }
        Err(ClusterError::Etcd(format!("{key} changes faster than it can be written")))
    }

    /// Deletes the key if it is bound to the lease.
    pub(super) async fn delete(&mut self, key: &str, lease: Lease) -> Result<(), ClusterError> {
        let txn = Txn::new()
            .when([Compare::lease(key, CompareOp::Equal, lease.0)])
            .and_then([TxnOp::delete(key, None)]);
        within(self.request_timeout, "deleting an entry", self.client.txn(txn)).await.map(drop)
    }

    /// All workers under the prefix.
    pub(super) async fn snapshot(&mut self, prefix: &str) -> Result<Snapshot, ClusterError> {
        let mut kv = self.client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let all = kv.get(prefix, Some(GetOptions::new().with_prefix()));
        let answer = within(self.request_timeout, "reading the members", all).await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let entries: Vec<_> =
            answer.kvs().iter().filter_map(|kv| worker_of(kv.key(), kv.value())).collect();
        let is_whole = entries.len() == answer.kvs().len();
        Ok(Snapshot { revision, entries, is_whole })
    }

    /// Changes under the prefix from a revision on.
    pub(super) async fn watch(
        &mut self,
        prefix: &str,
        from: i64,
    ) -> Result<WatchStream, ClusterError> {
        let options = WatchOptions::new().with_prefix().with_start_revision(from);
        let mut client = self.client.watch_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let watch = client.watch(prefix, Some(options));
        within(self.request_timeout, "watching the members", watch).await
    }

    /// The key's revision, 0 if absent, and the life that it speaks of.
    async fn read(&mut self, key: &str) -> Result<(i64, Option<Incarnation>), ClusterError> {
        let answer =
            within(self.request_timeout, "reading an entry", self.client.get(key, None)).await?;
        let Some(kv) = answer.kvs().first() else { return Ok((0, None)) };
        let info = worker_of(kv.key(), kv.value());
        Ok((kv.mod_revision(), info.map(|(_, info)| info.address.incarnation)))
    }
}

async fn client(
    config: &EtcdConfig,
    options: ConnectOptions,
    endpoint: &str,
) -> Result<Client, Error> {
    let options = Some(options);
    let Some(dial) = &config.dial else { return Client::connect([endpoint], options).await };
    let channel = channels::over(dial.clone(), endpoint);
    Client::from_channel(etcd_client::Channel::Tonic(channel), options).await
}

fn encode(info: &WorkerInfo) -> Result<Vec<u8>, ClusterError> {
    entry::write(info).map_err(|error| ClusterError::Etcd(error.to_string()))
}

/// A key and its value as a worker, if that is what they are.
#[must_use]
pub fn worker_of(key: &[u8], value: &[u8]) -> Option<(String, WorkerInfo)> {
    let key = String::from_utf8_lossy(key).into_owned();
    match entry::read(value) {
        Ok(info) if key.ends_with(&format!("/{}/{}", info.role, info.address.worker)) => {
            Some((key, info))
        }
        Ok(info) => {
            warn!(%key, worker = %info.address.worker, "passed over an entry under another's key");
            None
        }
        Err(error) => {
            warn!(%key, %error, "passed over an entry that is not a worker");
            None
        }
    }
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, ClusterError> {
    match timeout(limit, request).await {
        Ok(answer) => answer.map_err(|error| explain(&error)),
        Err(_) => Err(late(limit, what)),
    }
}
