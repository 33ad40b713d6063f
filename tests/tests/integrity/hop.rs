//! A node's stand-in: passes everything on to it, and damages one message where that is planned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluster::ErrorCode;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use prost::Message;
use proto::v1;
use proto::v1::decode_client::DecodeClient;
use proto::v1::decode_server::{Decode, DecodeServer};
use proto::v1::generate_response::{Event, Started};
use proto::v1::prefill_client::PrefillClient;
use proto::v1::prefill_server::{Prefill, PrefillServer};
use proto::v1::worker_client::WorkerClient;
use proto::v1::worker_server::{Worker, WorkerServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

/// More than a message may have.
const TOO_LARGE: usize = 9 << 20;

/// Which messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Generate,
    GenerateAnswer,
    Prefill,
    PrefillAnswer,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Harm {
    /// One bit of it is flipped: this one, modulo its length.
    Flip(usize),
    Drop,
    Double,
    /// It and all behind it are lost, and the stream ends as if that were all.
    Cut,
    /// It is too large.
    Swell,
}

/// One message that is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) place: Place,
    /// Messages there that pass before it.
    pub(crate) skip: usize,
    pub(crate) harm: Harm,
}

/// What all hops do.
#[derive(Default)]
pub(crate) struct Damage {
    plan: Mutex<Option<Plan>>,
    refusals: Mutex<Option<(ErrorCode, usize)>>,
    hits: AtomicUsize,
    calls: AtomicUsize,
}

/// Between a node and those who call it.
#[derive(Clone)]
pub(crate) struct Hop {
    to: Channel,
    damage: Arc<Damage>,
}

type Answers<M> = BoxStream<'static, Result<M, Status>>;

// === impl Damage ===

impl Damage {
    pub(crate) fn plan(&self, plan: Plan) {
        *self.plan.lock() = Some(plan);
    }

    pub(crate) fn heal(&self) {
        *self.plan.lock() = None;
    }

    /// Answers the next `calls` calls of a router itself.
    pub(crate) fn refuse(&self, code: ErrorCode, calls: usize) {
        *self.refusals.lock() = Some((code, calls));
    }

    /// Messages damaged.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Calls of routers.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn strike(&self, place: Place) -> Option<Harm> {
        let mut plan = self.plan.lock();
        let planned = plan.as_mut().filter(|plan| plan.place == place)?;
        if let Some(skip) = planned.skip.checked_sub(1) {
            planned.skip = skip;
            return None;
        }
        self.hits.fetch_add(1, Ordering::SeqCst);
        plan.take().map(|plan| plan.harm)
    }

    fn admit(&self) -> Result<(), Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match &mut *self.refusals.lock() {
            Some((code, left)) if *left > 0 => {
                *left -= 1;
                Err(code.status("as planned"))
            }
            _ => Ok(()),
        }
    }

    fn pass<M: Message + Default>(&self, place: Place, message: M) -> Result<M, Status> {
        match self.strike(place) {
            Some(Harm::Flip(bit)) => flip(&message, bit),
            Some(other) => panic!("{other:?} of a single message"),
            None => Ok(message),
        }
    }

    /// What comes of one message of a stream; `None` ends it.
    fn pass_one<M: Swells>(&self, place: Place, message: M) -> Option<Vec<Result<M, Status>>> {
        Some(match self.strike(place) {
            None => vec![Ok(message)],
            Some(Harm::Flip(bit)) => vec![flip(&message, bit)],
            Some(Harm::Drop) => vec![],
            Some(Harm::Double) => vec![Ok(message.clone()), Ok(message)],
            Some(Harm::Swell) => vec![Ok(message.swollen())],
            Some(Harm::Cut) => return None,
        })
    }
}

/// As it arrives: what doesn't parse is the library's to refuse.
fn flip<M: Message + Default>(message: &M, bit: usize) -> Result<M, Status> {
    let mut bytes = message.encode_to_vec();
    let bit = bit % (8 * bytes.len());
    bytes[bit / 8] ^= 1 << (bit % 8);
    M::decode(&bytes[..]).map_err(|error| Status::internal(error.to_string()))
}

/// A message that can be made too large.
trait Swells: Message + Default + Clone + 'static {
    fn swollen(self) -> Self;
}

impl Swells for v1::GenerateResponse {
    fn swollen(self) -> Self {
        let prefill_worker_id = "x".repeat(TOO_LARGE);
        let started = Started { prefill_worker_id, ..Started::default() };
        Self { event: Some(Event::Started(started)), ..self }
    }
}

impl Swells for v1::PrefillResponse {
    fn swollen(self) -> Self {
        self
    }
}

// === impl Hop ===

impl Hop {
    /// Serves before `uri`, on a port of its own; returns where.
    pub(crate) async fn start(uri: &str, damage: Arc<Damage>) -> String {
        let to = Channel::from_shared(uri.to_owned()).expect("an address").connect_lazy();
        let hop = Self { to, damage };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let server = Server::builder()
            .add_service(DecodeServer::new(hop.clone()))
            .add_service(PrefillServer::new(hop.clone()))
            .add_service(WorkerServer::new(hop));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        format!("http://{addr}")
    }

    fn answers<M: Swells>(
        &self,
        place: Place,
        answers: impl Stream<Item = Result<M, Status>> + Send + 'static,
    ) -> Response<Answers<M>> {
        let damage = self.damage.clone();
        let state = (answers.boxed(), VecDeque::new());
        let passed = stream::unfold(state, move |(mut answers, mut ready)| {
            let damage = damage.clone();
            async move {
                loop {
                    if let Some(answer) = ready.pop_front() {
                        return Some((answer, (answers, ready)));
                    }
                    match answers.next().await? {
                        Ok(answer) => ready.extend(damage.pass_one(place, answer)?),
                        Err(status) => ready.push_back(Err(status)),
                    }
                }
            }
        });
        Response::new(passed.boxed())
    }
}

#[tonic::async_trait]
impl Decode for Hop {
    type GenerateStream = Answers<v1::GenerateResponse>;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        self.damage.admit()?;
        let (metadata, extensions, message) = request.into_parts();
        let message = self.damage.pass(Place::Generate, message)?;
        let request = Request::from_parts(metadata, extensions, message);
        let answers = DecodeClient::new(self.to.clone()).generate(request).await?.into_inner();
        Ok(self.answers(Place::GenerateAnswer, answers))
    }
}

#[tonic::async_trait]
impl Prefill for Hop {
    type PrefillStream = Answers<v1::PrefillResponse>;

    async fn prefill(
        &self,
        request: Request<v1::PrefillRequest>,
    ) -> Result<Response<Self::PrefillStream>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let message = self.damage.pass(Place::Prefill, message)?;
        let request = Request::from_parts(metadata, extensions, message);
        let answers = PrefillClient::new(self.to.clone()).prefill(request).await?.into_inner();
        Ok(self.answers(Place::PrefillAnswer, answers))
    }
}

#[tonic::async_trait]
impl Worker for Hop {
    type ReportStream = Streaming<v1::LoadReport>;

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        WorkerClient::new(self.to.clone()).report(request).await
    }
}
