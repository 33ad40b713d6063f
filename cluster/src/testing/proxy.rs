//! A TCP hop that can go silent or break, as networks do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Bytes moved at once; small enough that a stall takes hold quickly.
const CHUNK_BYTES: usize = 64 << 10;

/// Forwards connections to one address. Ends, with all connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    flow: watch::Sender<Flow>,
    _stop: DropGuard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    Stalled,
}

// === impl Proxy ===

impl Proxy {
    /// Listens on a free port and forwards to `target`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let (flow, gate) = watch::channel(Flow::Open);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (accepting, connections) = (stop.clone(), tasks.clone());
        tasks.spawn(accepting.clone().run_until_cancelled_owned(async move {
            while let Ok((near, _)) = listener.accept().await {
                let forward = forward(near, target, gate.clone());
                connections.spawn(accepting.clone().run_until_cancelled_owned(forward));
            }
        }));
        Self { addr, flow, _stop: stop.drop_guard() }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://host:port` of it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Passes nothing on any more, in either direction; connections stay open.
    pub fn stall(&self) {
        self.flow.send_replace(Flow::Stalled);
    }

    /// Ends a [`Proxy::stall`].
    pub fn resume(&self) {
        self.flow.send_replace(Flow::Open);
    }
}

async fn forward(near: TcpStream, target: SocketAddr, gate: watch::Receiver<Flow>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    for stream in [&near, &far] {
        // A proxy that delays what it forwards would be a fault of its own.
        let _ = stream.set_nodelay(true);
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::select! {
        () = pump(near_read, far_write, gate.clone()) => {}
        () = pump(far_read, near_write, gate) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: watch::Receiver<Flow>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let Ok(bytes @ 1..) = from.read(&mut chunk).await else { return };
        if gate.wait_for(|flow| *flow == Flow::Open).await.is_err() {
            return;
        }
        if to.write_all(&chunk[..bytes]).await.is_err() {
            return;
        }
    }
}
