//! Within one process: no socket, but every check.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use kv_cache::KvRegion;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{CHUNKS_QUEUED_MAX, Link, OpenError, Target, Transport};
use crate::Receiver;
use crate::message::Open;

/// The receivers of this process, by address.
///
/// A clone is another handle to the same map.
#[derive(Clone, Debug, Default)]
pub struct LocalReceivers(Arc<RwLock<HashMap<String, Receiver>>>);

/// Takes a receiver out of the map again when dropped.
#[must_use = "dropping it takes the receiver out again"]
#[derive(Debug)]
pub struct Registration {
    receivers: LocalReceivers,
    uri: String,
}

/// Hands pages over by saying where they are, if the receiver's region reaches the sender's: one
/// copy. Else it hands buffers over by reference: two copies, out of one region and into the other.
#[derive(Clone, Debug)]
pub struct InProcessTransport {
    receivers: LocalReceivers,
}

// === impl LocalReceivers ===

impl LocalReceivers {
    /// Lets `receiver` be found at `uri`, in the place of whoever was there before, until the
    /// registration is dropped.
    pub fn register(&self, uri: impl Into<String>, receiver: Receiver) -> Registration {
        let uri = uri.into();
        self.0.write().insert(uri.clone(), receiver);
        Registration { receivers: self.clone(), uri }
    }

    fn get(&self, uri: &str) -> Option<Receiver> {
        self.0.read().get(uri).cloned()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.receivers.0.write().remove(&self.uri);
    }
}

// === impl InProcessTransport ===

impl InProcessTransport {
    /// The name it is offered by.
    pub const NAME: &'static str = "in-process";

    /// Reaches `receivers`.
    #[must_use]
    pub fn new(receivers: LocalReceivers) -> Self {
        Self { receivers }
    }
}

#[async_trait]
impl Transport for InProcessTransport {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn reaches(&self, target: &Target) -> bool {
        self.receivers.get(&target.uri).is_some()
    }

    fn peer(&self, target: &Target) -> Option<Arc<dyn KvRegion>> {
        self.receivers.get(&target.uri).map(|receiver| receiver.region())
    }

    async fn open(&self, target: &Target, open: Open) -> Result<Link, OpenError> {
        let receiver = self.receivers.get(&target.uri).ok_or_else(|| {
            OpenError::Unreachable(format!("no receiver {} in this process", target.uri))
        })?;
        let (pushes, pushed) = mpsc::channel(CHUNKS_QUEUED_MAX);
        // The sender drives the receiver's half: it polls for replies while it has work there.
        let replies = receiver.serve(open, ReceiverStream::new(pushed).map(Ok).boxed());
        Link::establish(pushes, replies.map(Ok).boxed()).await
    }
}
