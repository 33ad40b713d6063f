//! One connection to etcd, in the words of membership. Every request has a time limit.

use std::future::Future;
use std::time::Duration;

use etcd_client::{
    BalancedChannelBuilder, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions,
    LeaseGrantResponse, PutOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use http::Uri;
use proto::Readable;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::channel::Change;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;
use words::{Incarnation, WorkerInfo};

use super::config::EtcdConfig;
use super::trouble::{explain, late};
use crate::ClusterError;
use crate::membership::entry::{self, EntryError};
use crate::rpc::channels;

/// Tries at a write that others keep changing under us. Two lives of one worker are two writers.
const WRITE_ATTEMPTS: usize = 8;

/// Room for a snapshot of tens of thousands of workers, where the client's default ends at 4 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Keys of an answer where there may be very many.
const PAGE_KEYS: i64 = 16_384;

/// Of a key, in the log.
const KEY_CHARS_MAX: usize = 128;

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

/// A key to be written, or with no value to be deleted.
pub(super) struct Write {
    pub(super) key: String,
    pub(super) value: Option<Vec<u8>>,
}

/// Makes channels by which answers can be read, whatever they are.
struct Careful;

/// The workers at one revision.
pub(super) struct Snapshot {
    pub(super) revision: i64,
    pub(super) entries: Vec<(String, WorkerInfo)>,
    /// One that is none, if there is any.
    pub(super) odd: Option<Odd>,
}

/// Why something in the store is not a worker's entry.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", echo(key))]
pub struct Odd {
    key: String,
    why: EntryError,
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

    /// Writes many keys at once, bound to the lease, if an entry is. Says whether it is.
    pub(super) async fn write_all(
        &mut self,
        entry: &str,
        lease: Lease,
        writes: Vec<Write>,
    ) -> Result<bool, ClusterError> {
        let operation = |Write { key, value }| match value {
            Some(value) => TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease.0))),
            None => TxnOp::delete(key, None),
        };
        let operations: Vec<TxnOp> = writes.into_iter().map(operation).collect();
        let stands = Compare::lease(entry, CompareOp::Equal, lease.0);
        let txn = Txn::new().when([stands]).and_then(operations);
        let answer =
            within(self.request_timeout, "telling of prefixes", self.client.txn(txn)).await?;
        Ok(answer.succeeded())
    }

    /// Reads every key under the prefix and its value, as of one revision, which it returns.
    ///
    /// - `prefix`: ends with a slash.
    pub(super) async fn each(
        &mut self,
        prefix: &str,
        mut read: impl FnMut(&[u8], &[u8]),
    ) -> Result<i64, ClusterError> {
        let mut kv = self.client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let (mut from, mut revision) = (prefix.as_bytes().to_vec(), 0);
        // The first string behind all that begin with the prefix.
        let end = format!("{}0", prefix.trim_end_matches('/'));
        loop {
            let page = GetOptions::new().with_range(end.clone()).with_limit(PAGE_KEYS);
            let page = kv.get(from.clone(), Some(page.with_revision(revision)));
            let answer = within(self.request_timeout, "reading where prefixes are", page).await?;
            if revision == 0 {
                revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            }
            answer.kvs().iter().for_each(|kv| read(kv.key(), kv.value()));
            match answer.kvs().last().filter(|_| answer.more()) {
                Some(last) => from = [last.key(), &[0]].concat(),
                None => return Ok(revision),
            }
        }
    }

    /// All workers under the prefix.
    pub(super) async fn snapshot(&mut self, prefix: &str) -> Result<Snapshot, ClusterError> {
        let mut kv = self.client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let all = kv.get(prefix, Some(GetOptions::new().with_prefix()));
        let answer = within(self.request_timeout, "reading the members", all).await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let mut snapshot = Snapshot { revision, entries: Vec::new(), odd: None };
        for kv in answer.kvs() {
            match worker_of(kv.key(), kv.value()) {
                Ok(entry) => snapshot.entries.push(entry),
                Err(odd) => snapshot.odd = Some(odd),
            }
        }
        Ok(snapshot)
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
        // What is none is overwritten.
        let info = worker_of(kv.key(), kv.value()).ok();
        Ok((kv.mod_revision(), info.map(|(_, info)| info.address.incarnation)))
    }
}

async fn client(
    config: &EtcdConfig,
    options: ConnectOptions,
    endpoint: &str,
) -> Result<Client, Error> {
    let options = Some(options);
    match &config.dial {
        Some(dial) => {
            Client::from_channel(readable(channels::over(dial.clone(), endpoint)), options).await
        }
        None => Client::connect_with_balanced_channel([endpoint], options, Careful).await,
    }
}

/// A channel whose answers end no task, whatever is in them.
fn readable(channel: Channel) -> etcd_client::Channel {
    let readable = Readable::of(channel).map_err(Into::into);
    etcd_client::Channel::Custom(BoxCloneSyncService::new(readable))
}

// === impl Careful ===

impl BalancedChannelBuilder for Careful {
    type Error = Error;

    fn balanced_channel(
        self,
        buffer_size: usize,
    ) -> Result<(etcd_client::Channel, mpsc::Sender<Change<Uri, Endpoint>>), Error> {
        let (channel, endpoints) = Channel::balance_channel(buffer_size);
        Ok((readable(channel), endpoints))
    }
}

fn encode(info: &WorkerInfo) -> Result<Vec<u8>, ClusterError> {
    entry::write(info).map_err(|error| ClusterError::Etcd(error.to_string()))
}

/// A key and its value as a worker.
///
/// # Errors
/// [`Odd`] if that is not what they are.
pub fn worker_of(key: &[u8], value: &[u8]) -> Result<(String, WorkerInfo), Odd> {
    let key = String::from_utf8_lossy(key).into_owned();
    match entry::read(value) {
        Ok(info) if key.ends_with(&format!("/{}/{}", info.role, info.address.worker)) => {
            Ok((key, info))
        }
        Ok(_) => Err(Odd { key, why: EntryError::Misplaced }),
        Err(why) => Err(Odd { key, why }),
    }
}

/// The beginning of a key, which may be as long as a request.
fn echo(key: &str) -> String {
    key.chars().take(KEY_CHARS_MAX).flat_map(char::escape_debug).collect()
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{HeaderMap, HeaderValue};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::connections::{ConnectionLimits, Connections};
    use crate::security::Security;
    use crate::{HttpServer, Protocol};

    /// Whatever is asked: full, with details that are none.
    async fn odd_answer() -> HeaderMap {
        let headers = [
            ("content-type", "application/grpc"),
            ("grpc-status", "8"),
            ("grpc-message", "full"),
            ("grpc-status-details-bin", "no, none!"),
        ];
        let header = |(name, value)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        headers.into_iter().map(header).collect()
    }

    #[tokio::test]
    async fn a_status_that_can_not_be_read_is_an_error_and_no_end_of_the_task() {
        let listener = HttpServer::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = HttpServer {
            listener,
            connections: Connections::new(ConnectionLimits::default()),
            doorkeeper: Security::open().doorkeeper(),
            head_timeout: Duration::from_secs(10),
            protocol: Protocol::Grpc,
        };
        let stopped = CancellationToken::new();
        let serve = server.serve(Router::new().fallback(odd_answer), &stopped);
        let ask = async {
            let mut store = Store::connect(&EtcdConfig::new([endpoint]), 0).await?;
            store.snapshot("/").await
        };
        let asked = tokio::select! {
            asked = ask => asked,
            () = serve => unreachable!("serves until it is stopped"),
        };
        let refused = asked.map(|snapshot| snapshot.revision).unwrap_err().to_string();
        assert!(refused.contains("full"), "{refused}");
    }

    #[test]
    fn a_key_of_a_stranger_is_told_in_short() {
        let key = "/x\n".repeat(100_000);
        let odd = worker_of(key.as_bytes(), b"{}").unwrap_err().to_string();
        assert!(odd.len() < 400 && !odd.contains('\n'), "{odd}");
    }
}
