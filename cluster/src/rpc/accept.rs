//! Accepted connections: without Nagle's delay, limited in number, and cut when the node is gone.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::debug;

use super::net::{Accept, Accepted, Connection};
use crate::connections::{Caller, Connections, Guarded};
use crate::security::{Doorkeeper, Secured, Shown};

/// After an accept that failed, as it does when descriptors run out: it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come from.
pub(super) enum Source {
    /// A TCP port, at this address.
    Tcp(TcpListener),
    /// Another network.
    Other(Box<dyn Accept>),
}

/// Connections as they come.
pub(super) struct Incoming {
    source: Source,
    addr: SocketAddr,
    connections: Connections,
    doorkeeper: Doorkeeper,
    cut: CancellationToken,
    pause: Option<Pin<Box<Sleep>>>,
}

/// A connection that fails as soon as its token is cancelled.
///
/// tonic waits for ever for connections to close by themselves, and has no way to close them.
pub(super) struct Cuttable {
    connection: Guarded<Secured<Box<dyn Connection>>>,
    info: TcpConnectInfo,
    shown: Shown,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

// === impl Incoming ===

impl Incoming {
    /// - `addr`: where this node listens.
    pub(super) fn new(
        source: Source,
        addr: SocketAddr,
        connections: Connections,
        doorkeeper: Doorkeeper,
        cut: CancellationToken,
    ) -> Self {
        Self { source, addr, connections, doorkeeper, cut, pause: None }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Cuttable>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (Accepted { connection, peer }, seat) = loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.source.poll_accept(cx)) {
                None => return Poll::Ready(None),
                // Whoever gets no seat is hung up on.
                Some(Ok(accepted)) => {
                    let Some(seat) = self.connections.admit(accepted.peer.ip()) else { continue };
                    break (accepted, seat);
                }
                Some(Err(error)) => {
                    self.connections.accept_failed(&error);
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        };
        let info = TcpConnectInfo { local_addr: Some(self.addr), remote_addr: Some(peer) };
        let cut = Box::pin(self.cut.clone().cancelled_owned());
        let connection = self.doorkeeper.meet(connection);
        let shown = connection.shown().clone();
        let connection = Guarded::new(connection, seat);
        Poll::Ready(Some(Ok(Cuttable { connection, info, shown, cut })))
    }
}

// === impl Source ===

impl Source {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Accepted>>> {
        let listener = match self {
            Self::Tcp(listener) => listener,
            Self::Other(accept) => return accept.poll_next_unpin(cx),
        };
        let accepted = prepared(ready!(listener.poll_accept(cx)));
        let accepted =
            accepted.map(|(stream, peer)| Accepted { connection: Box::new(stream), peer });
        Poll::Ready(Some(accepted))
    }
}

/// An accepted connection, which sends what it is given at once.
///
/// tonic's own option is not applied to streams it is given. Without it a hand-off crawls at an
/// eighth of its speed, for Nagle waits for the peer's delayed acknowledgements.
fn prepared(accepted: io::Result<(TcpStream, SocketAddr)>) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = accepted?;
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "TCP_NODELAY");
    }
    Ok((stream, peer))
}

// === impl Cuttable ===

impl Cuttable {
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.cut.as_mut().poll(cx).map(|()| io::ErrorKind::ConnectionAborted.into())
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_cut(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

impl Connected for Cuttable {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller {
            tcp: self.info.clone(),
            activity: Arc::clone(self.connection.activity()),
            shown: self.shown.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::connections::ConnectionLimits;

    #[tokio::test]
    async fn accepted_connections_do_not_wait_to_fill_segments() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = prepared(listener.accept().await).unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_cut_wakes_a_connection_that_waits_for_bytes() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let _peer = TcpStream::connect(addr).await.unwrap();
        let cut = CancellationToken::new();
        let connections = Connections::new(ConnectionLimits::default());
        let mut incoming =
            Incoming::new(Source::Tcp(listener), addr, connections, Doorkeeper::Open, cut.clone());
        let mut accepted = incoming.next().await.unwrap().unwrap();
        let (read, ()) = tokio::join!(accepted.read_u8(), async { cut.cancel() });
        let error = read.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
