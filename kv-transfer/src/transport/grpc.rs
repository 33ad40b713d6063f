//! Over gRPC: works wherever the workers' addresses do.

mod service;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use proto::v1;
use proto::v1::kv_transfer_client::KvTransferClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::{CHUNKS_QUEUED_MAX, Cut, Link, OpenError, Target, Transport};
use crate::message::Open;

pub use service::KvTransferService;

/// A peer in the same cluster answers in milliseconds or is gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon a peer that vanished without a word is noticed while streams are open.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections kept. When there are more, most lead to workers that are gone: all are let go, and
/// those still in use live on with their streams.
const CHANNELS_MAX: usize = 1024;

/// Finds the connection to a receiver for one of several parallel lanes.
pub type Dial = Arc<dyn Fn(&Target, usize) -> Result<Channel, String> + Send + Sync>;

/// Streams over HTTP/2.
///
/// One connection is one core's work on each side (2 GB/s measured, four reach 11), so hand-offs
/// take turns over several lanes.
#[derive(Clone)]
pub struct GrpcTransport {
    dial: Dial,
    lanes: usize,
    next_lane: Arc<AtomicUsize>,
}

// === impl GrpcTransport ===

impl GrpcTransport {
    /// The name it is offered by.
    pub const NAME: &'static str = "grpc";

    /// With connections of its own, `lanes` to each receiver, opened when first used and kept.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        let channels: Mutex<HashMap<(String, usize), Channel>> = Mutex::default();
        Self::with_dial(
            lanes,
            Arc::new(move |target, lane| {
                let mut channels = channels.lock();
                if let Some(channel) = channels.get(&(target.uri.clone(), lane)) {
                    return Ok(channel.clone());
                }
                let channel = connect(&target.uri)?;
                if channels.len() >= CHANNELS_MAX {
                    channels.clear();
                }
                channels.insert((target.uri.clone(), lane), channel.clone());
                Ok(channel)
            }),
        )
    }

    /// With connections that somebody else keeps: `dial` is asked for one of `lanes` to a receiver
    /// at each stream.
    #[must_use]
    pub fn with_dial(lanes: usize, dial: Dial) -> Self {
        Self { dial, lanes: lanes.max(1), next_lane: Arc::default() }
    }

    fn client(&self, target: &Target) -> Result<KvTransferClient<Channel>, OpenError> {
        let lane = self.next_lane.fetch_add(1, Ordering::Relaxed) % self.lanes;
        let channel = (self.dial)(target, lane).map_err(OpenError::Unreachable)?;
        Ok(KvTransferClient::new(channel))
    }
}

fn connect(uri: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(uri.to_owned()).map_err(|error| error.to_string())?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .connect_lazy())
}

#[async_trait]
impl Transport for GrpcTransport {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn reaches(&self, target: &Target) -> bool {
        target.uri.starts_with("http://") || target.uri.starts_with("https://")
    }

    async fn open(&self, target: &Target, open: Open) -> Result<Link, OpenError> {
        let mut client = self.client(target)?;
        let (pushes, pushed) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let open = v1::PushRequest::from(open);
        let requests =
            stream::once(async { open }).chain(ReceiverStream::new(pushed).map(Into::into));
        let response = client.push(requests).await;
        let response = response.map_err(|status| OpenError::Unreachable(describe(&status)))?;
        let replies = response.into_inner().map(|reply| match reply {
            Ok(reply) => reply.try_into().map_err(|error| Cut(format!("bad reply: {error}"))),
            Err(status) => Err(Cut(describe(&status))),
        });
        Link::establish(pushes, replies.boxed()).await
    }
}

fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl std::fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcTransport").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}
