//! The seam: what carries a stream from a sender to a receiver.
//!
//! A transport only carries; what is said, checked and repeated is decided by the two ends, so all
//! transports fail and recover alike.

pub mod faulty;
pub mod grpc;
pub mod in_process;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use kv_cache::KvRegion;
use tokio::sync::mpsc;

use crate::message::{Open, Push, Rejection, Reply};

pub use faulty::{FaultCounts, Faults, Faulty};
pub use grpc::{GrpcTransport, KvTransferService};
pub use in_process::{InProcessTransport, LocalReceivers};

/// Chunks that may wait between a sender and its transport. One is being encoded while the next is
/// ready; the window bounds what is under way.
pub(crate) const CHUNKS_QUEUED_MAX: usize = 2;

/// A receiver, in one of its lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The worker's name.
    pub worker: String,
    /// `http://host:port` of its gRPC server, or the name it has in this process.
    pub uri: String,
    /// Which life.
    pub incarnation: u64,
}

/// Carries streams to receivers.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// The name it is offered by.
    fn name(&self) -> &'static str;

    /// Whether it could reach `target` at all.
    fn reaches(&self, target: &Target) -> bool;

    /// The memory that `target` writes to, if streams of this transport may say where pages are
    /// instead of carrying them ([`crate::message::Payload::InPlace`]).
    fn peer(&self, target: &Target) -> Option<Arc<dyn KvRegion>> {
        let _ = target;
        None
    }

    /// Opens a stream. The caller bounds the time.
    ///
    /// # Errors
    /// [`OpenError`]: refused for good, or no way through now.
    async fn open(&self, target: &Target, open: Open) -> Result<Link, OpenError>;
}

/// One stream, from the sender's side. Dropping it ends the stream.
pub struct Link {
    /// Payload bytes that the receiver lets be under way.
    pub window_bytes: u64,
    /// Takes what the sender says, in order. Closed once the stream is.
    pub pushes: mpsc::Sender<Push>,
    /// Gives what the receiver answers. The stream goes on only while this is polled.
    pub replies: BoxStream<'static, Result<Reply, Cut>>,
}

/// The stream is gone; the hand-off may go on over another.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Cut(pub String);

/// Why no stream was opened.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// The receiver won't have it: no use to try again.
    #[error("refused: {0}")]
    Rejected(Rejection),
    /// There is no way through, now.
    #[error("unreachable: {0}")]
    Unreachable(String),
}

/// The transports that a sender has.
#[derive(Clone)]
pub struct Transports(Vec<Arc<dyn Transport>>);

// === impl Transports ===

impl Transports {
    /// Those of `transports`.
    #[must_use]
    pub fn new(transports: Vec<Arc<dyn Transport>>) -> Self {
        Self(transports)
    }

    /// Those of `offered` that are here and reach `target`, best first: the receiver's order is
    /// taken, because it knows what it is connected to.
    #[must_use]
    pub fn choose(&self, offered: &[String], target: &Target) -> Vec<Arc<dyn Transport>> {
        let find = |name: &String| {
            self.0.iter().find(|known| known.name() == name && known.reaches(target)).cloned()
        };
        offered.iter().filter_map(find).collect()
    }
}

impl fmt::Debug for Transports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|transport| transport.name())).finish()
    }
}

// === impl Link ===

impl Link {
    /// Waits for the receiver's first reply, which must be that the stream is open.
    pub(crate) async fn establish(
        pushes: mpsc::Sender<Push>,
        mut replies: BoxStream<'static, Result<Reply, Cut>>,
    ) -> Result<Self, OpenError> {
        match replies.next().await {
            Some(Ok(Reply::Opened { window_bytes })) => Ok(Self { window_bytes, pushes, replies }),
            Some(Ok(Reply::Rejected(rejection))) => Err(OpenError::Rejected(rejection)),
            Some(Ok(other)) => Err(OpenError::Unreachable(format!("it began with {other:?}"))),
            Some(Err(cut)) => Err(OpenError::Unreachable(cut.0)),
            None => Err(OpenError::Unreachable("it ended the stream at once".into())),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("window_bytes", &self.window_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(transports: &[Arc<dyn Transport>]) -> Vec<&'static str> {
        transports.iter().map(|transport| transport.name()).collect()
    }

    fn offer(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_receivers_order_decides_among_what_both_have() {
        let local = LocalReceivers::default();
        let ours = Transports::new(vec![
            Arc::new(GrpcTransport::new(1)),
            Arc::new(InProcessTransport::new(local)),
        ]);
        let remote = Target { worker: "d".into(), uri: "http://10.0.0.1:1".into(), incarnation: 1 };
        let offered = offer(&["nccl", "in-process", "grpc"]);
        assert_eq!(names(&ours.choose(&offered, &remote)), ["grpc"], "no such receiver here");
        assert!(ours.choose(&offer(&["nccl"]), &remote).is_empty());
        let odd = Target { worker: "d".into(), uri: "inproc://elsewhere".into(), incarnation: 1 };
        assert!(ours.choose(&offered, &odd).is_empty(), "not an address that gRPC knows");
    }
}
