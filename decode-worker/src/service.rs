//! `baton.v1.Decode`: one request from its credit to its last token.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use proto::v1;
use scheduler::{Address, Generation};
use tonic::{Request, Response, Status};
use worker::call::{Call, ResponseStream, Responses};
use worker::local::relay;
use worker::{Node, WorkerError};

use crate::handoff::{HandedOver, Handoff};
use crate::shared::Shared;

/// Generates for the router.
pub(crate) struct DecodeService {
    node: Node,
    shared: Arc<Shared>,
}

/// One request.
struct Session {
    node: Node,
    shared: Arc<Shared>,
    work: Arc<Generation>,
    /// As the work came with it; the peers check it, too.
    work_seal: u64,
    peers: Vec<Address>,
    deadline: Instant,
}

// === impl DecodeService ===

impl DecodeService {
    pub(crate) fn new(node: Node, shared: Arc<Shared>) -> Self {
        Self { node, shared }
    }
}

#[async_trait]
impl v1::decode_server::Decode for DecodeService {
    type GenerateStream = ResponseStream<v1::GenerateResponse>;

    async fn generate(
        &self,
        request: Request<v1::GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let mut request = request.into_inner();
        let seal = self.node.integrity.open("generate", &mut request)?;
        let permit = self.node.admit(request.incarnation)?;
        let call = Call::new(permit, request.deadline_ms, seal);
        let work_seal = request.generation.as_ref().map_or(0, |generation| generation.seal);
        let peers = request.prefill_peers.into_iter().map(TryInto::try_into);
        let session = Session {
            node: self.node.clone(),
            shared: self.shared.clone(),
            work: Arc::new(self.node.integrity.generation(request.generation)?),
            work_seal,
            peers: peers.collect::<Result<_, _>>().map_err(WorkerError::from)?,
            deadline: call.deadline,
        };
        Ok(call.spawn(self.node.life.tasks(), |responses| session.run(responses)))
    }
}

// === impl Session ===

impl Session {
    /// Tries the prefill peers in order, then this worker itself.
    ///
    /// A failed attempt may have delivered the first token already. Then the next one goes on behind
    /// it: computed again, a near-tie might come out the other way. Where there are several choices,
    /// each with its own, they are computed again; the router drops the twins.
    async fn run(mut self, responses: Responses<v1::GenerateResponse>) -> Result<(), WorkerError> {
        let mut miscomputed = false;
        for (attempt, peer) in (1..).zip(&self.peers) {
            let mut delivered = Vec::new();
            let handoff = Handoff {
                node: &self.node,
                shared: &self.shared,
                work: &self.work,
                work_seal: self.work_seal,
                peer,
                attempt,
                deadline: self.deadline,
            };
            match handoff.run(&responses, &mut delivered).await {
                Ok(HandedOver::Finished) => return Ok(()),
                Ok(HandedOver::Resumed(events)) => return relay(events, &responses).await,
                Err(error) if !error.code().retryable() => return Err(error),
                Err(error) if error.code().retryable_once() && miscomputed => return Err(error),
                Err(error) => {
                    miscomputed |= error.code().retryable_once();
                    self.shared.stats.attempt_failed();
                    tracing::warn!(peer = %peer.worker, %error, "hand-off failed");
                }
            }
            if let ([_], [first]) = (&self.work.choices[..], &delivered[..]) {
                let generated = [&self.work.generated[..], &[first.token]].concat().into();
                self.work = Arc::new(Generation { generated, ..(*self.work).clone() });
                self.work_seal = v1::Generation::from(self.work.as_ref()).seal;
            }
        }
        if !self.peers.is_empty() {
            self.shared.stats.fell_back_to_local();
        }
        worker::local::generate(&self.node.engine, self.work, self.deadline, &responses).await
    }
}
