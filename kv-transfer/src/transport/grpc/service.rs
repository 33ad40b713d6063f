//! The receiving end: `baton.v1.KvTransfer`.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use proto::v1;
use proto::v1::kv_transfer_server::{KvTransfer, KvTransferServer};
use tonic::{Request, Response, Status, Streaming};

use crate::Receiver;
use crate::message::{Open, Push};
use crate::transport::Cut;

/// A stream says what it is for at once, or is none.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a [`Receiver`] to other processes.
#[derive(Clone, Debug)]
pub struct KvTransferService {
    receiver: Receiver,
}

// === impl KvTransferService ===

impl KvTransferService {
    /// The service, ready to be added to a server, with message limits that fit its pages.
    ///
    /// The server should set `TCP_NODELAY` on what it accepts and give streams at least
    /// [`crate::ReceiverConfig::window_bytes`] of window, or transfers crawl.
    #[must_use]
    pub fn server(receiver: Receiver) -> KvTransferServer<Self> {
        let limit = receiver.message_bytes_max();
        KvTransferServer::new(Self { receiver }).max_decoding_message_size(limit)
    }
}

#[async_trait]
impl KvTransfer for KvTransferService {
    type PushStream = BoxStream<'static, Result<v1::PushResponse, Status>>;

    async fn push(
        &self,
        request: Request<Streaming<v1::PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let mut requests = request.into_inner();
        let first = tokio::time::timeout(OPEN_TIMEOUT, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no `open` came"))??;
        let open = first.ok_or_else(|| Status::invalid_argument("no `open` came"))?;
        let open = Open::try_from(open)?;
        let pushes = requests.map(|request| match request {
            Ok(request) => Push::try_from(request).map_err(|error| Cut(error.to_string())),
            Err(status) => Err(Cut(status.to_string())),
        });
        let replies = self.receiver.serve(open, pushes.boxed());
        Ok(Response::new(replies.map(|reply| Ok(reply.into())).boxed()))
    }
}
