//! One connection to a worker: made, and proven to lead to it.

use std::io;
use std::sync::Arc;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use words::{Role, WorkerId};

use super::net::{Connection, Dial};
use crate::security::Security;

/// Connects to one worker.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    /// How, where it isn't over TCP.
    dial: Option<Arc<dyn Dial>>,
    security: Security,
    worker: WorkerId,
    role: Role,
}

// === impl Dialler ===

impl Dialler {
    pub(super) fn new(
        dial: Option<Arc<dyn Dial>>,
        security: Security,
        worker: WorkerId,
        role: Role,
    ) -> Self {
        Self { dial, security, worker, role }
    }

    /// The caller bounds the time.
    pub(super) async fn connect(self, uri: Uri) -> io::Result<TokioIo<Box<dyn Connection>>> {
        let connection = match &self.dial {
            Some(dial) => dial.dial(&uri).await?,
            None => Box::new(tcp(&uri).await?),
        };
        self.security.meet(connection, &self.worker, self.role).await.map(TokioIo::new)
    }
}

async fn tcp(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
