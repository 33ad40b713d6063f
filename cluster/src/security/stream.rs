//! Connections that begin with a handshake, or don't.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_util::either::Either;
use tracing::debug;

use super::{Certificates, Identity};

/// How a port meets its callers.
#[derive(Clone, Debug, Default)]
pub enum Doorkeeper {
    /// Lets everyone in, unencrypted.
    #[default]
    Open,
    /// Shows its certificate.
    Shows(Arc<Certificates>),
    /// Shows its certificate, and lets in who has one of the same authority.
    Asks(Arc<Certificates>),
}

/// Who is at the other end of a connection, known once its handshake is over.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<OnceLock<Identity>>);

/// An accepted connection. Its handshake is part of its first read or write, so that it runs beside
/// all others, and under the time limits of whoever reads.
pub struct Secured<S> {
    state: State<S>,
    shown: Shown,
}

/// A connection in the open, or its encrypted side.
type Met<S> = Either<S, Box<TlsStream<S>>>;

enum State<S> {
    Handshake(Box<Accept<S>>),
    Ready(Met<S>),
    /// The handshake failed.
    Broken,
}

// === impl Doorkeeper ===

impl Doorkeeper {
    /// Meets a new connection.
    pub fn meet<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Secured<S> {
        let config = match self {
            Self::Open => None,
            Self::Shows(certificates) => Some(certificates.current().configs.public.clone()),
            Self::Asks(certificates) => {
                let configs = &certificates.current().configs;
                // One that was read without an authority lets nobody in by mistake: it asks nobody.
                Some(configs.mutual.clone().unwrap_or_else(|| configs.public.clone()))
            }
        };
        let state = match config {
            Some(config) => State::Handshake(Box::new(TlsAcceptor::from(config).accept(stream))),
            None => State::Ready(Either::Left(stream)),
        };
        Secured { state, shown: Shown::default() }
    }

    /// Shows `certificates`, if there are any.
    #[must_use]
    pub fn showing(certificates: Option<&Arc<Certificates>>) -> Self {
        certificates.map_or(Self::Open, |certificates| Self::Shows(certificates.clone()))
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Open => "http",
            Self::Shows(_) | Self::Asks(_) => "https",
        }
    }
}

// === impl Shown ===

impl From<Identity> for Shown {
    fn from(identity: Identity) -> Self {
        Self(Arc::new(identity.into()))
    }
}

impl Shown {
    /// The node that it has shown to be.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.0.get()
    }
}

// === impl Secured ===

impl<S: AsyncRead + AsyncWrite + Unpin> Secured<S> {
    /// Who is at the other end.
    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Shakes hands, if that is not done yet.
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut Met<S>>>> {
        if let State::Handshake(accept) = &mut self.state {
            match ready!(Pin::new(accept).poll(cx)) {
                Ok(stream) => self.recognise(stream),
                Err(error) => {
                    self.state = State::Broken;
                    debug!(%error, "a handshake failed");
                    return Poll::Ready(Err(error));
                }
            }
        }
        match &mut self.state {
            State::Ready(stream) => Poll::Ready(Ok(Pin::new(stream))),
            State::Handshake(_) | State::Broken => {
                Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
            }
        }
    }

    fn recognise(&mut self, stream: TlsStream<S>) {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        // A certificate without a node's name is that of nobody here.
        if let Some(identity) = shown.and_then(|shown| Identity::of_certificate(shown).ok()) {
            // Nobody else sets it.
            let _ = self.shown.0.set(identity);
        }
        self.state = State::Ready(Either::Right(Box::new(stream)));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(cx))?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_stream(cx))?.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        // What a handshake leads to copies into its records anyway.
        matches!(&self.state, State::Ready(stream) if stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_stream(cx))?.poll_shutdown(cx)
    }
}
