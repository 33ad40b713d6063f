//! Connections that end by themselves when nothing happens on them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{Activity, Seat};
use crate::patience::Patience;

/// As many bytes as any client begins with: HTTP/2's preface has 24, and no request of HTTP/1 that
/// names its host is shorter.
const GREETING_BYTES: usize = 24;

/// A connection that fails when its client says nothing for too long, when nothing can be written
/// to it, and when another needs its place.
///
/// Servers wait for ever for connections to say something.
pub struct Guarded<S> {
    stream: S,
    seat: Seat,
    /// Bytes missing until the client counts as one that speaks.
    greeting_left: usize,
    /// When to look whether it has been silent for too long; `None`: never again.
    silence: Option<Patience>,
    /// Runs while a write waits.
    stall: Option<Patience>,
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
}

// === impl Guarded ===

impl<S> Guarded<S> {
    /// Guards `stream` in its place.
    pub fn new(stream: S, seat: Seat) -> Self {
        let silence = Some(Patience::lasting(seat.limits().greeting_timeout));
        let evicted = Box::pin(seat.closed().clone().cancelled_owned());
        Self { stream, seat, greeting_left: GREETING_BYTES, silence, stall: None, evicted }
    }

    /// What happens on the connection.
    pub fn activity(&self) -> &Arc<Activity> {
        self.seat.activity()
    }

    /// Ready with what ends the connection, if something does.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.evicted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        while let Some(silence) = &mut self.silence {
            ready!(Pin::new(silence).poll(cx));
            let Some(at) = self.look_again() else {
                let silent = "the client said nothing for too long";
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, silent));
            };
            self.silence = Some(Patience::until(at));
        }
        Poll::Pending
    }

    /// When to look next whether the client has been silent for too long; `None` if it has.
    fn look_again(&self) -> Option<Instant> {
        let limit = self.seat.limits().idle_timeout.filter(|_| self.greeting_left == 0)?;
        let now = Instant::now();
        let until = self.seat.activity().idle_since().unwrap_or(now) + limit;
        (until > now).then_some(until)
    }

    fn note_read(&mut self, bytes: usize) {
        if self.greeting_left > 0 {
            self.greeting_left = self.greeting_left.saturating_sub(bytes);
            if self.greeting_left == 0 {
                self.silence = self.seat.limits().idle_timeout.map(Patience::lasting);
            }
        }
    }

    /// Passes on what a write said, unless it has waited for too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(timeout) = self.seat.limits().reader_timeout else { return written };
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let stall = self.stall.get_or_insert_with(|| Patience::lasting(timeout));
        ready!(Pin::new(stall).poll(cx));
        self.seat.reader_cut();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_end(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.note_read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, written)
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
