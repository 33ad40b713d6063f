//! A worker on a real port that says what it is told to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::rpc::{Listener, Server};
use cluster::testing::worker;
use cluster::{
    ErrorCode, Lifecycle, Membership as _, MemoryMembership, Registration, ReportService, Shortage,
};
use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use proto::v1::decode_server::{Decode, DecodeServer};
use proto::v1::generate_response::{Event, Path, Started, Tokens};
use proto::{SealChain, v1};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use words::{FinishReason, Incarnation, Load, Role, WorkerInfo};

use super::MODEL;

const REPORT_INTERVAL: Duration = Duration::from_millis(10);

/// What a peer does with a call.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// Sends so many tokens of each choice, and then nothing.
    Tokens(u32),
    /// Generates to the end.
    Finish,
    /// Sends a token that leaves one out.
    Gap,
    /// Refuses.
    Refuse(tonic::Code),
    /// Has too little of something, in words of its own.
    Full(Shortage),
    /// Says nothing at all: its connection answers pings, as HTTP/2 does by itself.
    Mute,
}

/// A decode worker in one of its lives.
pub(super) struct Peer {
    pub(super) info: WorkerInfo,
    pub(super) calls: Arc<Mutex<Vec<v1::GenerateRequest>>>,
    _registration: Registration,
    server: JoinHandle<()>,
}

struct Script {
    act: Act,
    calls: Arc<Mutex<Vec<v1::GenerateRequest>>>,
}

// === impl Peer ===

impl Peer {
    /// Starts `id` in a life of its own on `addr`, and registers it.
    pub(super) async fn start(
        store: &MemoryMembership,
        addr: SocketAddr,
        id: &str,
        incarnation: u64,
        act: Act,
    ) -> Self {
        Self::with(store, addr, id, incarnation, act, |_| {}).await
    }

    /// As [`Peer::start`], with something changed in what it publishes.
    pub(super) async fn with(
        store: &MemoryMembership,
        addr: SocketAddr,
        id: &str,
        incarnation: u64,
        act: Act,
        change: impl FnOnce(&mut WorkerInfo),
    ) -> Self {
        let listener = Listener::bind(addr).await.expect("a port");
        let mut info = worker(id, Role::Decode);
        info.address.incarnation = Incarnation(incarnation);
        info.address.uri = listener.uri("127.0.0.1");
        info.fingerprint.model = MODEL.into();
        change(&mut info);
        let (node, calls) = (Lifecycle::new(), Arc::<Mutex<Vec<_>>>::default());
        node.serve();
        let load = || Load { total_blocks: 1024, free_blocks: 1024, ..Load::default() };
        let reports = ReportService::start("", &info, load, REPORT_INTERVAL, &node);
        let script = Script { act, calls: calls.clone() };
        let routes = Routes::new(reports.into_server()).add_service(DecodeServer::new(script));
        let server = Server::new(listener, &node);
        let server = tokio::spawn(async move { server.serve(routes).await.expect("a server") });
        let _registration = store.register(info.clone()).await.expect("a registration");
        Self { info, calls, _registration, server }
    }

    /// Ends like a killed process: connections break, the port closes.
    pub(super) async fn kill(self) {
        self.server.abort();
        assert!(self.server.await.is_err_and(|error| error.is_cancelled()));
    }

    /// Where it listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.info.address.uri.trim_start_matches("http://").parse().expect("an address")
    }
}

// === impl Script ===

#[async_trait]
impl Decode for Script {
    type GenerateStream = Pin<Box<dyn Stream<Item = Result<v1::GenerateResponse, Status>> + Send>>;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        self.calls.lock().push(request.clone());
        let mut seals = SealChain::after(request.seal);
        let work = request.generation.expect("work");
        let from = work.generated.len() as u32;
        let events = match self.act {
            Act::Refuse(code) => return Err(Status::new(code, "as told")),
            Act::Full(shortage) => {
                let said = "worker d at http://127.0.0.1:1 is busy";
                let wait = Some(Duration::from_millis(900));
                let mut status = cluster::retry::status(ErrorCode::Busy, said, wait);
                shortage.mark(&mut status);
                return Err(status);
            }
            Act::Mute => std::future::pending().await,
            Act::Tokens(count) => tokens(&work, from..from + count),
            Act::Gap => tokens(&work, from + 1..from + 2),
            Act::Finish => {
                let mut events = tokens(&work, from..work.stop.as_ref().expect("rules").max_tokens);
                let finished =
                    work.choices.iter().map(|&c| v1::Finished::new(c, FinishReason::Length));
                events.extend(finished.map(Event::Finished));
                events
            }
        };
        let sealed = |event| seals.seal(v1::GenerateResponse { event: Some(event), seal: 0 });
        let events: Vec<_> = events.into_iter().map(sealed).map(Ok).collect();
        // Whoever has more to say stays silent: only a kill ends the stream.
        Ok(Response::new(stream::iter(events).chain(stream::pending()).boxed()))
    }
}

/// The start, and the tokens of `range`: each the same wherever it comes from.
fn tokens(work: &v1::Generation, range: std::ops::Range<u32>) -> Vec<Event> {
    let started =
        Started { path: Path::Local.into(), prefill_worker_id: String::new(), cached_tokens: 0 };
    let token = |index| {
        let of = |&choice: &u32| v1::SampledToken {
            choice,
            index,
            token: super::token(choice, index),
            logprob: None,
        };
        Event::Tokens(Tokens { tokens: work.choices.iter().map(of).collect() })
    };
    [Event::Started(started)].into_iter().chain(range.map(token)).collect()
}
