//! Accepted connections: without Nagle's delay, and cut when the node is gone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::{debug, warn};

/// After an accept that failed, as it does when descriptors run out: it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections as they come.
pub(super) struct Incoming {
    listener: TcpListener,
    cut: CancellationToken,
    pause: Option<Pin<Box<Sleep>>>,
}

/// A connection that fails as soon as its token is cancelled.
///
/// tonic waits for ever for connections to close by themselves, and has no way to close them.
pub(super) struct Cuttable {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

// === impl Incoming ===

impl Incoming {
    pub(super) fn new(listener: TcpListener, cut: CancellationToken) -> Self {
        Self { listener, cut, pause: None }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Cuttable>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (stream, peer) = loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok(accepted) => break accepted,
                Err(error) => {
                    warn!(%error, "accepting a connection");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        };
        // tonic's own option is not applied to streams it is given. Without it a hand-off crawls at
        // an eighth of its speed, for Nagle waits for the peer's delayed acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "TCP_NODELAY");
        }
        let cut = Box::pin(self.cut.clone().cancelled_owned());
        Poll::Ready(Some(Ok(Cuttable { stream, cut })))
    }
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Cuttable {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn accepted() -> (Cuttable, TcpStream, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let cut = CancellationToken::new();
        let mut incoming = Incoming::new(listener, cut.clone());
        (incoming.next().await.unwrap().unwrap(), peer, cut)
    }

    #[tokio::test]
    async fn accepted_connections_do_not_wait_to_fill_segments() {
        let (accepted, _peer, _cut) = accepted().await;
        assert!(accepted.stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_cut_wakes_a_connection_that_waits_for_bytes() {
        let (mut accepted, _peer, cut) = accepted().await;
        let (read, ()) = tokio::join!(accepted.read_u8(), async { cut.cancel() });
        let error = read.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
