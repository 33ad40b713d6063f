//! The receiving end: `baton.v1.KvTransfer`.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryFutureExt as _};
use proto::v1;
use proto::v1::kv_transfer_server::{KvTransfer, KvTransferServer};
use tonic::{Request, Response, Status, Streaming};

use super::lanes::{Joined, Meeting, Pushes};
use super::wire::LaneOpen;
use crate::Receiver;
use crate::message::{Open, Push};
use crate::transport::Cut;

/// A stream says what it is for at once, or is none.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a [`Receiver`] to other processes.
#[derive(Clone, Debug)]
pub struct KvTransferService {
    receiver: Receiver,
    meeting: Meeting,
}

type Replies = BoxStream<'static, Result<v1::PushResponse, Status>>;

// === impl KvTransferService ===

impl KvTransferService {
    /// The service, ready to be added to a server, with message limits that fit its pages.
    ///
    /// The server should set `TCP_NODELAY` on what it accepts and give streams at least
    /// [`crate::ReceiverConfig::window_bytes`] of window over all their lanes, or transfers crawl.
    #[must_use]
    pub fn server(receiver: Receiver) -> KvTransferServer<Self> {
        let limit = receiver.message_bytes_max();
        let service = Self { receiver, meeting: Meeting::default() };
        KvTransferServer::new(service).max_decoding_message_size(limit)
    }

    fn serve(&self, open: Open, pushes: Pushes) -> Replies {
        self.receiver.serve(open, pushes).map(|reply| Ok(reply.into())).boxed()
    }

    /// All answers of a stream come on lane 0.
    async fn serve_first(&self, open: Open, joined: Joined) -> Result<Replies, Status> {
        let merged = joined.merged(self.receiver.early_bytes_max()).await?;
        Ok(self.serve(open, merged.boxed()))
    }
}

#[async_trait]
impl KvTransfer for KvTransferService {
    type PushStream = Replies;

    async fn push(
        &self,
        request: Request<Streaming<v1::PushRequest>>,
    ) -> Result<Response<Replies>, Status> {
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(OPEN_TIMEOUT, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no `open` came"))??;
        let open = first.ok_or_else(|| Status::invalid_argument("no `open` came"))?;
        let lane = LaneOpen::try_from(open)?;
        let pushes = requests.map(|request| match request {
            Ok(request) => Push::try_from(request).map_err(|error| Cut(error.to_string())),
            Err(status) => Err(Cut(status.to_string())),
        });
        if lane.lanes == 1 {
            return Ok(Response::new(self.serve(lane.open, pushes.boxed())));
        }
        let joined = self.meeting.join(&lane, pushes.boxed())?;
        Ok(Response::new(if lane.lane == 0 {
            self.serve_first(lane.open, joined).await?
        } else {
            // Says nothing, but lasts as long as the stream.
            let over = stream::once(joined.over().map_ok(|()| None));
            over.filter_map(async |it| it.transpose()).boxed()
        }))
    }
}
