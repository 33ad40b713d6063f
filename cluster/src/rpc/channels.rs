//! Channels to other nodes, shared by all who call them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use words::{Address, Role, WorkerId};

use super::dial::Dialler;
use super::net::{Connection, Dial};
use super::server::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES,
};
use crate::security::Security;
use crate::{ClusterError, ErrorCode, Members};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Until a call whose answer is a stream is heard of at all: nodes take a call before they do anything for it, so
/// all that takes time is the largest message on a slow network.
const BEGIN_PATIENCE: Duration = Duration::from_secs(15);
/// Of one answer, what is on its way to a caller who doesn't read: a few hundred tokens, behind which the worker
/// pauses. Enough for 3 MB/s at 10 ms.
const ANSWER_WINDOW_BYTES: u32 = 32 << 10;
/// Of all answers on a connection: as much as HTTP/2 can say. Those that nobody reads would otherwise use up what the
/// others are sent by; what they hold is bounded one by one.
const ANSWERS_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// A pool of channels, one per worker, uri and purpose. A clone is another handle to the same pool.
///
/// A channel connects with its first call and again after it broke; a dead peer is noticed within
/// about five seconds, whether calls are open or not. Where the node is locked, nothing is said to
/// anybody who has not proven to be the worker.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    pool: Arc<Mutex<BTreeMap<Key, Channel>>>,
    /// How to connect, where it isn't over TCP.
    dial: Option<Arc<dyn Dial>>,
    security: Security,
}

/// Which channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    uri: String,
    worker: WorkerId,
    role: Role,
    purpose: Purpose,
}

/// What a channel is for: small messages don't queue behind KV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Requests, tokens, reports.
    Control,
    /// KV pages. One connection is bound to one core at either end (about 2 GB/s); several lanes
    /// carry more (11 GB/s over four).
    Bulk {
        /// Which of the connections.
        lane: u8,
    },
}

// === impl Channels ===

impl Channels {
    /// An empty pool.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty pool whose channels connect by `dial`.
    #[must_use]
    pub fn over(dial: Arc<dyn Dial>) -> Self {
        Self { dial: Some(dial), ..Self::default() }
    }

    /// The same, of a node that meets others as `security` says.
    #[must_use]
    pub fn secured(self, security: &Security) -> Self {
        Self { security: security.clone(), ..self }
    }

    /// The channel for calls with small messages to a worker. Must be called within the runtime.
    ///
    /// Calls through a channel to an address that can't be one fail as unavailable, saying so.
    #[must_use]
    pub fn get(&self, address: &Address, role: Role) -> Channel {
        self.channel(address, role, Purpose::Control)
    }

    /// The channel for KV pages on `lane`; otherwise like [`Channels::get`].
    #[must_use]
    pub fn bulk(&self, address: &Address, role: Role, lane: u8) -> Channel {
        self.channel(address, role, Purpose::Bulk { lane })
    }

    /// The channel for a purpose; otherwise like [`Channels::get`].
    #[must_use]
    pub fn channel(&self, address: &Address, role: Role, purpose: Purpose) -> Channel {
        let (uri, worker) = (address.uri.clone(), address.worker.clone());
        let key = Key { uri, worker, role, purpose };
        let mut pool = self.pool.lock();
        if let Some(channel) = pool.get(&key) {
            return channel.clone();
        }
        let channel = self.connect_lazy(&key);
        pool.entry(key).or_insert(channel).clone()
    }

    fn connect_lazy(&self, key: &Key) -> Channel {
        let endpoint = endpoint(&key.uri).and_then(|endpoint| {
            check_scheme(&endpoint, &self.security)?;
            in_the_clear(&endpoint)
        });
        match endpoint {
            Ok(endpoint) => {
                let (dial, security) = (self.dial.clone(), self.security.clone());
                let dialler = Dialler::new(dial, security, key.worker.clone(), key.role);
                let dial = tower::service_fn(move |uri| dialler.clone().connect(uri));
                tune(endpoint, key.purpose).connect_with_connector_lazy(dial)
            }
            Err(error) => nowhere(&error),
        }
    }

    /// A call to `address` whose answer is a stream, once the peer has taken it.
    ///
    /// If nothing is heard of it, or its connection won't carry it, the next call makes another: one bit that was flipped on
    /// its way may leave a connection that answers pings and nothing else, or header tables that are unlike at
    /// its two ends, for as long as it lasts.
    ///
    /// # Errors
    /// The call's own, or [`ErrorCode::Unavailable`] if nothing is heard of it.
    pub async fn begun<T>(
        &self,
        address: &Address,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let silent = || ErrorCode::Unavailable.status("nothing was heard of a call");
        let begun = timeout(BEGIN_PATIENCE, call).await.unwrap_or_else(|_| Err(silent()));
        begun.inspect_err(|status| {
            if ErrorCode::from(status) == ErrorCode::Unavailable {
                self.evict(&address.uri);
            }
        })
    }

    /// Forgets the channels to `uri`. Calls that hold one go on; it closes after the last.
    pub fn evict(&self, uri: &str) {
        self.pool.lock().retain(|known, _| known.uri != uri);
    }

    /// Channels held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pool.lock().len()
    }

    /// Whether no channel is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts, at each change of the members, the channels to whoever is not among them, until the
    /// membership closes.
    pub async fn follow(&self, mut view: watch::Receiver<Arc<Members>>) {
        loop {
            self.keep(&mut view);
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    /// Keeps only the channels to members.
    fn keep(&self, view: &mut watch::Receiver<Arc<Members>>) {
        // The pool first: a channel to whoever joins after the look at the view is added after it.
        let mut pool = self.pool.lock();
        let members = view.borrow_and_update().clone();
        let present: BTreeSet<&str> =
            members.workers.values().map(|info| info.address.uri.as_str()).collect();
        pool.retain(|known, _| present.contains(known.uri.as_str()));
    }
}

/// Refuses a uri that no channel can lead to.
///
/// # Errors
/// [`ClusterError::Config`] saying what is wrong with it.
pub fn check_uri(uri: &str) -> Result<(), ClusterError> {
    endpoint(uri).map(drop)
}

/// A channel by `dial` to whoever is at `uri`: the store, which is no worker.
pub(crate) fn over(dial: Arc<dyn Dial>, uri: &str) -> Channel {
    let connect = move |uri: Uri| {
        let connecting = dial.dial(&uri);
        async move { connecting.await.map(TokioIo::new) }
    };
    match endpoint(uri) {
        Ok(endpoint) => {
            tune(endpoint, Purpose::Control).connect_with_connector_lazy(tower::service_fn(connect))
        }
        Err(error) => nowhere(&error),
    }
}

/// A channel whose calls fail for this reason.
fn nowhere(error: &ClusterError) -> Channel {
    let reason = error.to_string();
    let refuse = move |_: Uri| {
        let error = io::Error::new(io::ErrorKind::InvalidInput, reason.clone());
        ready(Err::<TokioIo<Box<dyn Connection>>, _>(error))
    };
    Endpoint::from_static("http://nowhere").connect_with_connector_lazy(tower::service_fn(refuse))
}

fn endpoint(uri: &str) -> Result<Endpoint, ClusterError> {
    let endpoint = Endpoint::from_shared(uri.to_owned()).map_err(|error| invalid(&uri, &error))?;
    let parts = (endpoint.uri().scheme_str(), endpoint.uri().host());
    if !matches!(parts, (Some("http" | "https"), Some(_))) {
        return Err(invalid(&uri, &"want http://host:port or https://host:port"));
    }
    Ok(endpoint)
}

/// Refuses a node that is met otherwise than this one meets others.
fn check_scheme(endpoint: &Endpoint, security: &Security) -> Result<(), ClusterError> {
    let encrypted = endpoint.uri().scheme_str() == Some("https");
    let problem = match (encrypted, security.is_locked()) {
        (true, false) => "it asks for a certificate, and this node has none",
        (false, true) => "it has no certificate, and this node asks for one",
        (true, true) | (false, false) => return Ok(()),
    };
    Err(invalid(endpoint.uri(), &problem))
}

/// The same place, for a connector that encrypts by itself.
fn in_the_clear(endpoint: &Endpoint) -> Result<Endpoint, ClusterError> {
    let mut parts = endpoint.uri().clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    let clear = Uri::from_parts(parts).map_err(|error| invalid(endpoint.uri(), &error))?;
    Ok(Endpoint::from(clear))
}

fn invalid(uri: &dyn fmt::Display, problem: &dyn fmt::Display) -> ClusterError {
    ClusterError::Config(format!("uri \"{uri}\": {problem}"))
}

fn tune(endpoint: Endpoint, purpose: Purpose) -> Endpoint {
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    match purpose {
        Purpose::Control => endpoint
            .initial_stream_window_size(ANSWER_WINDOW_BYTES)
            .initial_connection_window_size(ANSWERS_WINDOW_BYTES),
        Purpose::Bulk { .. } => endpoint
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use words::Incarnation;

    use super::*;

    fn address() -> Address {
        let uri = "http://127.0.0.1:1".to_owned();
        Address { worker: WorkerId("w".into()), incarnation: Incarnation(1), uri }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_nothing_is_heard_of_is_tried_elsewhere() {
        let (channels, start) = (Channels::new(), tokio::time::Instant::now());
        let _ = channels.get(&address(), Role::Decode);
        let silence = std::future::pending::<Result<(), Status>>();
        let silent = channels.begun(&address(), silence).await.unwrap_err();
        assert!(ErrorCode::from(&silent).retryable(), "{silent}");
        assert_eq!(start.elapsed(), BEGIN_PATIENCE);
        assert!(channels.is_empty(), "the next call makes another connection");
        assert!(channels.begun(&address(), std::future::ready(Ok(()))).await.is_ok());
    }

    /// One flipped bit in a header, and no request is understood any more, as long as the connection lasts.
    #[tokio::test]
    async fn a_connection_that_carries_no_call_is_given_up_and_a_refusal_is_no_reason() {
        let channels = Channels::new();
        for (status, kept) in [
            (Status::unavailable("a stream was reset"), false),
            (ErrorCode::Busy.status("busy"), true),
        ] {
            let _ = channels.get(&address(), Role::Decode);
            let failed = std::future::ready(Err::<(), _>(status));
            channels.begun(&address(), failed).await.unwrap_err();
            assert_eq!(!channels.is_empty(), kept);
        }
    }
}
