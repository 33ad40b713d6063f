//! What can go wrong between nodes.

use std::io;
use std::net::SocketAddr;

use words::{Incarnation, WorkerId};

use self::code::ErrorCode;

pub mod code;
pub mod shortage;

/// An error of the machinery that nodes share.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A setting that can't work, found before anything was started.
    #[error("configuration: {0}")]
    Config(String),
    /// The same worker has registered in a newer life; this one must not go on.
    #[error("worker {worker} has a newer life, {}", by.0)]
    Superseded {
        /// Who.
        worker: WorkerId,
        /// The life that is registered.
        by: Incarnation,
    },
    /// The port is not to be had.
    #[error("cannot listen on {addr}: {source}{}", advice(source))]
    Bind {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The server broke off.
    #[error("serving: {0}")]
    Serve(String),
    /// A peer can't be reached.
    #[error("worker {0} cannot be reached")]
    PeerLost(WorkerId),
    /// etcd refused.
    #[error("etcd: {0}")]
    Etcd(String),
    /// etcd can't be asked.
    #[error("etcd is away: {0}")]
    EtcdAway(String),
    /// This node is leaving and takes no new work.
    #[error("the node is draining")]
    Draining,
    /// The membership was closed.
    #[error("the membership is closed")]
    Closed,
    /// Logs or traces could not be set up.
    #[error("telemetry: {0}")]
    Telemetry(String),
}

/// What can be done about a port that is not to be had.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program listens there; stop it, or choose another port (0 takes a free one)"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        io::ErrorKind::PermissionDenied => {
            ": this user may not; ports from 1024 on are for everybody"
        }
        _ => "",
    }
}

// === impl ClusterError ===

impl ClusterError {
    /// What this means to a caller.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config(_) => ErrorCode::InvalidRequest,
            Self::Superseded { .. } => ErrorCode::StaleIncarnation,
            Self::PeerLost(_)
            | Self::Etcd(_)
            | Self::EtcdAway(_)
            | Self::Draining
            | Self::Closed => ErrorCode::Unavailable,
            Self::Bind { .. } | Self::Serve(_) | Self::Telemetry(_) => ErrorCode::Internal,
        }
    }
}

impl From<ClusterError> for tonic::Status {
    fn from(error: ClusterError) -> Self {
        error.code().status(error.to_string())
    }
}

/// The innermost cause, which is the one that says something.
pub(crate) fn innermost<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> &'e (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
