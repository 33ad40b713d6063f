//! Where connections come from and go to: the kernel's TCP, or a network of another make.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use futures::Stream;
use futures::future::BoxFuture;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes to and from another node.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for C {}

/// Reaches other nodes otherwise than over the kernel's TCP.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to the host and port of `uri`.
    fn dial(&self, uri: &Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>>;
}

/// A connection that was accepted.
pub struct Accepted {
    /// Its bytes.
    pub connection: Box<dyn Connection>,
    /// Who called.
    pub peer: SocketAddr,
}

/// Connections that come from somewhere else than a TCP port.
pub trait Accept: Stream<Item = io::Result<Accepted>> + Send + Unpin + 'static {}

impl<S: Stream<Item = io::Result<Accepted>> + Send + Unpin + 'static> Accept for S {}

// === impl Accepted ===

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted").field("peer", &self.peer).finish_non_exhaustive()
    }
}
