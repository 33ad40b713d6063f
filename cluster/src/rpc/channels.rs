//! Channels to other nodes, shared by all who call them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::TryFutureExt as _;
use futures::future::{BoxFuture, FutureExt as _};
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use scheduler::Address;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use super::net::{Connection, Dial};
use super::server::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES,
};
use crate::{ClusterError, Members};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A pool of channels, one per uri and purpose. A clone is another handle to the same pool.
///
/// A channel connects with its first call and again after it broke; a dead peer is noticed within
/// about five seconds, whether calls are open or not.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    pool: Arc<Mutex<BTreeMap<(String, Purpose), Channel>>>,
    /// How to connect, where it isn't over TCP.
    dial: Option<Arc<dyn Dial>>,
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

    /// The channel for calls with small messages. Must be called within the runtime.
    ///
    /// Calls through a channel to an address that can't be one fail as unavailable, saying so.
    #[must_use]
    pub fn get(&self, address: &Address) -> Channel {
        self.channel(&address.uri, Purpose::Control)
    }

    /// The channel for KV pages on `lane`; otherwise like [`Channels::get`].
    #[must_use]
    pub fn bulk(&self, address: &Address, lane: u8) -> Channel {
        self.channel(&address.uri, Purpose::Bulk { lane })
    }

    /// The channel to `uri` for a purpose; otherwise like [`Channels::get`].
    #[must_use]
    pub fn channel(&self, uri: &str, purpose: Purpose) -> Channel {
        let mut pool = self.pool.lock();
        let key = (uri.to_owned(), purpose);
        pool.entry(key).or_insert_with(|| connect_lazy(uri, purpose, self.dial.as_ref())).clone()
    }

    /// Forgets the channels to `uri`. Calls that hold one go on; it closes after the last.
    pub fn evict(&self, uri: &str) {
        self.pool.lock().retain(|(known, _), _| known != uri);
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
        pool.retain(|(uri, _), _| present.contains(uri.as_str()));
    }
}

/// Refuses a uri that no channel can lead to.
///
/// # Errors
/// [`ClusterError::Config`] saying what is wrong with it.
pub fn check_uri(uri: &str) -> Result<(), ClusterError> {
    endpoint(uri).map(drop)
}

fn connect_lazy(uri: &str, purpose: Purpose, dial: Option<&Arc<dyn Dial>>) -> Channel {
    let endpoint = match endpoint(uri) {
        Ok(endpoint) => tune(endpoint, purpose),
        Err(error) => {
            let reason = error.to_string();
            let refuse = move |_: Uri| {
                let error = io::Error::new(io::ErrorKind::InvalidInput, reason.clone());
                ready(Err::<TokioIo<Box<dyn Connection>>, _>(error))
            };
            return Endpoint::from_static("http://nowhere")
                .connect_with_connector_lazy(tower::service_fn(refuse));
        }
    };
    match dial.cloned() {
        Some(dial) => endpoint.connect_with_connector_lazy(tower::service_fn(connector(dial))),
        None => endpoint.connect_lazy(),
    }
}

/// `dial`, as tonic wants it.
fn connector(
    dial: Arc<dyn Dial>,
) -> impl Fn(Uri) -> BoxFuture<'static, io::Result<TokioIo<Box<dyn Connection>>>> {
    move |uri| dial.dial(&uri).map_ok(TokioIo::new).boxed()
}

fn endpoint(uri: &str) -> Result<Endpoint, ClusterError> {
    let invalid = |problem: String| ClusterError::Config(format!("uri {uri:?}: {problem}"));
    let endpoint =
        Endpoint::from_shared(uri.to_owned()).map_err(|error| invalid(error.to_string()))?;
    let parts = (endpoint.uri().scheme_str(), endpoint.uri().host());
    if !matches!(parts, (Some("http"), Some(_))) {
        return Err(invalid("want http://host:port".to_owned()));
    }
    Ok(endpoint)
}

fn tune(endpoint: Endpoint, purpose: Purpose) -> Endpoint {
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    match purpose {
        Purpose::Control => endpoint,
        Purpose::Bulk { .. } => endpoint
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX),
    }
}
