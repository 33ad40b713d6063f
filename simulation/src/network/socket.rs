//! The ends of a connection, as programs hold them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::state::EndId;
use super::{HostId, Network};

/// One end of a connection; dropping it closes it.
pub(super) struct Socket {
    network: Network,
    end: EndId,
}

/// A connection that is being made.
pub(super) struct Dialing {
    socket: Option<Socket>,
}

// === impl Socket ===

impl Socket {
    pub(super) fn new(network: Network, end: EndId) -> Self {
        Self { network, end }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (read, writer) = self.network.0.lock().poll_read(self.end, cx, buf);
        writer.into_iter().for_each(std::task::Waker::wake);
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.network.0.lock().poll_write(self.end, cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.network.0.lock().finish(self.end);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.0.lock().close(self.end);
    }
}

// === impl Dialing ===

impl Dialing {
    pub(super) fn new(network: Network, from: HostId, to: HostId) -> Self {
        let end = network.0.lock().connect(from, to);
        Self { socket: Some(Socket::new(network, end)) }
    }
}

impl Future for Dialing {
    type Output = io::Result<Socket>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(socket) = &self.socket else { return Poll::Pending };
        let opened = socket.network.0.lock().poll_opened(socket.end, cx);
        opened.map(|opened| {
            let socket = self.socket.take();
            opened.and_then(|()| socket.ok_or_else(|| io::ErrorKind::NotConnected.into()))
        })
    }
}
