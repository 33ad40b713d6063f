//! `baton.v1.Decode`: one request from its credit to its last token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::ErrorCode;
use proto::v1;
use tonic::{Request, Response, Status};
use words::{Address, Generation};
use worker::call::{Call, ResponseStream, Responses};
use worker::entrance::step_max;
use worker::local::relay;
use worker::{Ask, Node, WorkerError};

use crate::handoff::{HandedOver, Handoff};
use crate::inbound::Inbound;

/// Prefill workers tried for one request: beyond that, computing the prompt here is sooner done.
const PEERS_MAX: usize = 16;

/// Generates for the router.
pub(crate) struct DecodeService {
    node: Node,
    inbound: Arc<Inbound>,
}

/// One request.
struct Session {
    node: Node,
    inbound: Arc<Inbound>,
    work: Arc<Generation>,
    /// As the work came with it; the peers check it, too.
    work_seal: u64,
    peers: Vec<Address>,
    deadline: Instant,
    start_by: Option<Instant>,
    asked_at: Instant,
    step_max: Option<Duration>,
}

// === impl DecodeService ===

impl DecodeService {
    pub(crate) fn new(node: Node, inbound: Arc<Inbound>) -> Self {
        Self { node, inbound }
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
        let call = Call::new(
            permit,
            self.node.capped_ms(request.deadline_ms),
            request.start_within_ms,
            seal,
        )
        .waiting(request.waited_us);
        let work_seal = request.generation.as_ref().map_or(0, |generation| generation.seal);
        let peers = request.prefill_peers.into_iter().take(PEERS_MAX).map(TryInto::try_into);
        let session = Session {
            node: self.node.clone(),
            inbound: self.inbound.clone(),
            work: Arc::new(self.node.integrity.generation(request.generation)?),
            work_seal,
            peers: peers.collect::<Result<_, _>>().map_err(WorkerError::from)?,
            deadline: call.deadline,
            start_by: call.start_by,
            asked_at: call.asked_at,
            step_max: step_max(request.step_max_us),
        };
        Ok(call.spawn(self.node.life.tasks(), |responses| session.run(responses)))
    }
}

fn log(peer: &Address, error: &WorkerError) {
    if error.code() == ErrorCode::Busy {
        tracing::debug!(peer = %peer.worker, %error, "no hand-off");
    } else {
        tracing::warn!(peer = %peer.worker, %error, "hand-off failed");
    }
}

// === impl Session ===

impl Session {
    /// Tries the prefill peers in order, then this worker itself.
    ///
    /// A failed attempt may have delivered the first token already. Then the next one goes on behind
    /// it: computed again, a near-tie might come out the other way. Where there are several choices,
    /// each with its own, they are computed again; the router drops the twins.
    ///
    /// Work that ended with the tokens it came with needs neither a peer nor a place: its last worker was lost before
    /// anybody heard of the end.
    ///
    /// A peer that is busy says what the router needs to hear: computing the prompt here, too, would take the time of
    /// those that are let in.
    async fn run(mut self, responses: Responses<v1::GenerateResponse>) -> Result<(), WorkerError> {
        let Node { engine, entrance, .. } = &self.node;
        if engine.end_of(&self.work).is_some() {
            return worker::local::generate(
                engine,
                self.work,
                self.deadline,
                self.asked_at,
                &responses,
            )
            .await;
        }
        let computes = self.peers.is_empty();
        let ask = Ask::to_generate(engine, &self.work, computes)
            .starting_by(self.start_by)
            .with_steps_of(self.step_max);
        let _inside = entrance.enter(ask).await?;
        let mut refusal = None;
        let mut miscomputed = false;
        for (attempt, peer) in (1..).zip(&self.peers) {
            let mut delivered = Vec::new();
            let handoff = Handoff {
                node: &self.node,
                inbound: &self.inbound,
                work: &self.work,
                work_seal: self.work_seal,
                peer,
                attempt,
                deadline: self.deadline,
                start_by: self.start_by,
                asked_at: self.asked_at,
            };
            match handoff.run(&responses, &mut delivered).await {
                Ok(HandedOver::Finished) => return Ok(()),
                Ok(HandedOver::Resumed(events)) => return relay(events, &responses).await,
                Err(error) if !error.code().retryable() => return Err(error),
                Err(error) if error.code().retryable_once() && miscomputed => return Err(error),
                Err(error) => {
                    miscomputed |= error.code().retryable_once();
                    self.inbound.stats.attempt_failed();
                    log(peer, &error);
                    refusal = Some(error).filter(|error| error.code() == ErrorCode::Busy);
                }
            }
            if let ([_], [first]) = (&self.work.choices[..], &delivered[..]) {
                let generated = [&self.work.generated[..], &[first.token]].concat().into();
                self.work = Arc::new(Generation { generated, ..(*self.work).clone() });
                self.work_seal = v1::Generation::from(self.work.as_ref()).seal;
            }
        }
        if let Some(refusal) = refusal.filter(|_| self.start_by.is_some()) {
            return Err(refusal);
        }
        if !self.peers.is_empty() {
            self.inbound.stats.fell_back_to_local();
        }
        worker::local::generate(
            &self.node.engine,
            self.work,
            self.deadline,
            self.asked_at,
            &responses,
        )
        .await
    }
}
