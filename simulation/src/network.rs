//! A network between simulated hosts: byte streams over links that are slow, lossy, cut or flipping.
//!
//! What TCP hides stays hidden: a lost segment comes late, in order and once. What it doesn't hide
//! happens: connections that are refused, reset, half open or silent, and bits that flip behind a
//! checksum's back. Nothing moves by itself; [`Network::deliver`] hands over what is due.

mod link;
mod socket;
mod state;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cluster::rpc::net::{Accepted, Connection, Dial};
use futures::Stream;
use futures::future::BoxFuture;
use http::Uri;
use parking_lot::Mutex;

pub use self::link::Quality;
use self::socket::{Dialing, Socket};
use self::state::State;
use crate::checks::coverage::Coverage;

/// Every simulated server listens here.
pub const PORT: u16 = 50051;

/// A host on the network, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u8);

/// The network. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Network(Arc<Mutex<State>>);

/// How one host reaches the others.
#[derive(Clone)]
pub struct Wire {
    network: Network,
    host: HostId,
}

/// A host's open port.
pub struct Listening {
    network: Network,
    host: HostId,
}

// === impl HostId ===

impl HostId {
    /// Where it is.
    #[must_use]
    pub fn addr(self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.0)), PORT)
    }

    /// Where it is, for callers.
    #[must_use]
    pub fn uri(self) -> String {
        format!("http://{}", self.addr())
    }

    fn of(uri: &Uri) -> Option<Self> {
        let addr: Ipv4Addr = uri.host()?.parse().ok()?;
        Some(Self(addr.octets()[3]))
    }
}

// === impl Network ===

impl Network {
    /// A network without faults; which delays come up follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, coverage: Coverage) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed, coverage))))
    }

    /// How `host` reaches the others.
    #[must_use]
    pub fn wire(&self, host: HostId) -> Wire {
        Wire { network: self.clone(), host }
    }

    /// Hands over what is due by `now`.
    pub fn deliver(&self, now: Duration) {
        let wakers = self.0.lock().deliver(now);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// When the next delivery is due, if any is on its way.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.0.lock().next_due()
    }

    /// Sets how good the way from one host to another is.
    pub fn set_quality(&self, from: HostId, to: HostId, quality: Quality) {
        self.0.lock().link(from, to).quality = quality;
    }

    /// Lets nothing through from one host to another: what is sent waits, and goes on its way when the
    /// link is mended, as TCP would send it again.
    pub fn cut(&self, from: HostId, to: HostId) {
        self.0.lock().link(from, to).cut = true;
    }

    /// Mends a link.
    pub fn mend(&self, from: HostId, to: HostId) {
        self.0.lock().mend(from, to);
    }

    /// Switches a host off without a word to its peers, or on again.
    pub fn set_powered(&self, host: HostId, powered: bool) {
        self.0.lock().set_powered(host, powered);
    }

    /// A digest of everything delivered so far, and when.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.0.lock().digest
    }
}

// === impl Wire ===

impl Wire {
    /// Opens the host's port.
    #[must_use]
    pub fn listen(&self) -> Listening {
        self.network.0.lock().listen(self.host);
        Listening { network: self.network.clone(), host: self.host }
    }
}

impl Dial for Wire {
    fn dial(&self, uri: &Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>> {
        let Some(to) = HostId::of(uri) else {
            let error = io::Error::new(io::ErrorKind::AddrNotAvailable, uri.to_string());
            return Box::pin(async { Err(error) });
        };
        let dialing = Dialing::new(self.network.clone(), self.host, to);
        Box::pin(async move { Ok(Box::new(dialing.await?) as Box<dyn Connection>) })
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("host", &self.host).finish_non_exhaustive()
    }
}

// === impl Listening ===

impl Stream for Listening {
    type Item = io::Result<Accepted>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accepted = self.network.0.lock().poll_accept(self.host, cx);
        accepted.map(|(end, peer)| {
            let connection = Box::new(Socket::new(self.network.clone(), end));
            Some(Ok(Accepted { connection, peer: peer.addr() }))
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let wakers = self.network.0.lock().close_port(self.host);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }
}
