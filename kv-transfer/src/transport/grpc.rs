//! Over gRPC: works wherever the workers' addresses do.

mod framing;
mod lanes;
mod service;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{ready, try_join_all};
use futures::{Stream, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use proto::{Readable, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::ServiceExt as _;

use self::lanes::deal;
use self::wire::{Envelope, LANES_MAX, LaneOpen};
use super::{CHUNKS_QUEUED_MAX, Cut, Link, OpenError, Target, Transport};
use crate::message::{Open, Push};

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

/// Payload for each connection of a stream, at least: what is shorter takes fewer. Two milliseconds of
/// one connection, beside which opening another stream (0.1 ms) is little.
const LANE_BYTES: u64 = 4 << 20;

/// Streams over HTTP/2.
///
/// One connection is one core's work on each side (2 GB/s measured, four reach 11), so a large hand-off's
/// messages are dealt over all lanes, and small ones take turns.
#[derive(Clone)]
pub struct GrpcTransport {
    dial: Dial,
    lanes: usize,
    lane_bytes: u64,
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
        let lanes = lanes.clamp(1, LANES_MAX);
        Self { dial, lanes, lane_bytes: LANE_BYTES, next_lane: Arc::default() }
    }

    /// The same, with a connection for every `lane_bytes` of a hand-off, as far as there are.
    #[must_use]
    pub fn with_lane_bytes(self, lane_bytes: u64) -> Self {
        Self { lane_bytes: lane_bytes.max(1), ..self }
    }

    /// Begins one lane of a stream, on connection `connection`.
    async fn call(
        &self,
        target: &Target,
        connection: usize,
        lane: LaneOpen,
        pushes: mpsc::Receiver<Push<Bytes>>,
    ) -> Result<Streaming<v1::PushResponse>, OpenError> {
        let channel = (self.dial)(target, connection % self.lanes);
        let channel = channel.map_err(OpenError::Unreachable)?;
        let envelope = Envelope::new(lane.open.id);
        let open = v1::PushRequest::from(lane);
        let pushes = ReceiverStream::new(pushes).map(move |push| envelope.seal_push(push));
        let requests = stream::once(async { open }).chain(pushes);
        let replies = push(channel, requests).await;
        replies.map_err(|status| OpenError::Unreachable(describe(&status)))
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
        let lanes = open.bytes.div_ceil(self.lane_bytes).clamp(1, self.lanes as u64) as usize;
        let first = self.next_lane.fetch_add(1, Ordering::Relaxed);
        let (pushes, pushed) = mpsc::channel(CHUNKS_QUEUED_MAX);
        let (dealt, ends): (Vec<_>, Vec<_>) =
            (0..lanes).map(|_| mpsc::channel(CHUNKS_QUEUED_MAX)).unzip();
        let calls = ends.into_iter().enumerate().map(|(lane, end)| {
            let lane_open = LaneOpen { open: open.clone(), lane, lanes };
            self.call(target, first.wrapping_add(lane), lane_open, end)
        });
        let envelope = Envelope::new(open.id);
        let mut replies = try_join_all(calls).await?.into_iter().map(|replies| {
            replies.map(move |reply| match reply {
                Ok(reply) => {
                    let reply = envelope.open_reply(reply);
                    reply.map_err(|error| Cut(format!("bad reply: {error}")))
                }
                Err(status) => Err(Cut(describe(&status))),
            })
        });
        // Nothing comes on the other lanes but word that they are broken. The first one's end is the
        // stream's; theirs may be heard of earlier.
        let first = replies.next().expect("one lane at least").boxed();
        let dealing =
            stream::once(deal(pushed, dealt)).filter_map(async |dealt| dealt.err().map(Err));
        let others = replies.map(futures::StreamExt::boxed).chain([dealing.boxed()]);
        let replies = until_first_ends(first, stream::select_all(others));
        Link::establish(pushes, replies.boxed()).await
    }
}

/// What a generated client does, but for how messages become frames.
async fn push(
    channel: Channel,
    requests: impl Stream<Item = v1::PushRequest> + Send + 'static,
) -> Result<Streaming<v1::PushResponse>, Status> {
    let frames = requests.flat_map(|message| stream::iter(framing::encode(message)));
    let body = StreamBody::new(frames.map(|frame| Ok::<_, Status>(Frame::data(frame))));
    let mut request = http::Request::post(service::PUSH).version(http::Version::HTTP_2);
    let headers = [(http::header::TE, "trailers"), (http::header::CONTENT_TYPE, service::GRPC)];
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request =
        request.body(Body::new(body)).map_err(|error| Status::internal(error.to_string()))?;
    let response = Readable::of(channel)
        .oneshot(request)
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let (head, body) = response.into_parts();
    match Status::from_header_map(&head.headers) {
        Some(status) if status.code() != Code::Ok => return Err(status),
        _ => {}
    }
    let decoder = ProstCodec::<v1::PushRequest, v1::PushResponse>::default().decoder();
    Ok(Streaming::new_response(decoder, body, head.status, None, None))
}

/// Both, until `first` has ended.
fn until_first_ends<T: Send + Sync + 'static>(
    first: impl Stream<Item = T> + Send + Unpin + 'static,
    others: impl Stream<Item = T> + Send + Unpin + 'static,
) -> impl Stream<Item = T> + Send {
    let first = first.map(Some).chain(stream::once(ready(None)));
    let both = stream::select(first, others.map(Some));
    both.take_while(|it| ready(it.is_some())).filter_map(ready)
}

fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

impl std::fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcTransport").field("lanes", &self.lanes).finish_non_exhaustive()
    }
}
