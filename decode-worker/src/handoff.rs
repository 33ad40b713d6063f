//! One attempt to have a prompt computed elsewhere and its KV blocks brought here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Shortage;
use cluster::rpc::MESSAGE_BYTES_MAX;
use engine::{EventStream, Mode, Submission};
use futures::TryStreamExt as _;
use kv_cache::BlockHash;
use kv_transfer::{Expected, PendingHandoff, TransferError};
use proto::convert::transfer::context_name;
use proto::v1::generate_response as to_router;
use proto::v1::prefill_client::PrefillClient;
use proto::v1::prefill_response as from_peer;
use proto::{Readable, SealChain, Sealed as _, v1};
use tonic::Streaming;
use words::{Address, Generation, Role, SampledToken};
use worker::call::Responses;
use worker::{Integrity, Node, WorkerError};

use crate::inbound::Inbound;

/// When to come back to a worker that has as many hand-offs open as it may: about what one takes.
const HANDOFFS_RETRY: Duration = Duration::from_secs(1);

/// One attempt with one prefill worker.
pub(crate) struct Handoff<'a> {
    pub(crate) node: &'a Node,
    pub(crate) inbound: &'a Inbound,
    pub(crate) work: &'a Arc<Generation>,
    /// The router's, for the peer.
    pub(crate) work_seal: u64,
    pub(crate) peer: &'a Address,
    /// Counted from 1.
    pub(crate) attempt: u32,
    pub(crate) deadline: Instant,
    pub(crate) start_by: Option<Instant>,
    /// When the client's request arrived.
    pub(crate) asked_at: Instant,
}

/// How an attempt ended well.
pub(crate) enum HandedOver {
    /// Every choice ended with its first token: there is nothing to decode.
    Finished,
    /// The blocks were verified and the engine goes on from them.
    Resumed(EventStream),
}

/// A hand-off that may come.
struct Expectation {
    pending: PendingHandoff,
    /// The name of the tokens whose KV is asked for.
    context: BlockHash,
}

/// A prefill worker's answers, each checked to be the next one.
struct Answers<'a> {
    integrity: &'a Integrity,
    stream: Streaming<v1::PrefillResponse>,
    seals: SealChain,
}

/// What the prefill worker told.
struct Told {
    /// Choices that ended with their first token.
    finished: Vec<u32>,
    committed: Option<from_peer::Committed>,
}

// === impl Handoff ===

impl Handoff<'_> {
    /// - `delivered`: takes the tokens that went to the router, also where the attempt fails after.
    pub(crate) async fn run(
        &self,
        responses: &Responses<v1::GenerateResponse>,
        delivered: &mut Vec<SampledToken>,
    ) -> Result<HandedOver, WorkerError> {
        let started = cluster::clock::now();
        self.node.peers.check(self.peer, Role::Prefill).await?;
        let Expectation { pending, context } = self.expect().await?;
        let answers = self.call(&pending).await?;
        let told = self.listen(answers, context, responses, delivered).await?;
        if told.finished.len() == self.work.choices.len() {
            return Ok(HandedOver::Finished);
        }
        let committed = told.committed.ok_or_else(|| self.broken("it ended without a commit"))?;
        let table = pending
            .verified(self.deadline)
            .await
            .map_err(|error| WorkerError::Handoff(error.to_string()))?;
        // The engine owns the blocks from here on, before anything else is waited for.
        let mode = Mode::Resume { table, first: std::mem::take(delivered) };
        let submission = Submission::new(self.work.clone(), mode).by(self.deadline);
        let events = self.node.engine.submit(submission)?;
        let took = cluster::clock::now() - started;
        let done = to_router::HandoffDone {
            transport: committed.transport,
            bytes: committed.bytes,
            blocks: committed.blocks,
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            attempts: self.attempt,
        };
        self.inbound.stats.handed_over(took, done.bytes);
        responses.send(response(to_router::Event::HandoffDone(done))).await?;
        Ok(HandedOver::Resumed(events))
    }

    /// Takes a credit for the blocks, and notes which leading ones are here already.
    async fn expect(&self) -> Result<Expectation, WorkerError> {
        let engine = &self.node.engine;
        let context = self.work.context();
        let block_tokens = engine.info().block_tokens;
        let hasher = engine.hasher(&self.work.salt);
        let hashes = hasher.hash_blocks(None, &context, block_tokens);
        let name = hasher.name_after(&hashes, &context, block_tokens);
        let name = name.ok_or_else(|| WorkerError::Invalid("the prompt is empty".into()))?;
        // Never the last block: it is written to by the tokens that follow.
        let held = engine.cached_blocks(&context, &hashes);
        let blocks = engine.info().layout.blocks_for(context.len()) - held.blocks().len();
        let reservation = self.inbound.credits.take(engine, blocks as u32).await?;
        let tokens = context.len() as u32;
        let deadline = self.deadline;
        let expected = Expected { reservation, held, tokens, context: name, deadline };
        let pending = self.inbound.receiver.expect(expected).map_err(|error| match error {
            TransferError::TooManyHandoffs { .. } => {
                let (message, shortage) = (error.to_string(), Shortage::Line);
                WorkerError::Busy { message, shortage, retry_after: HANDOFFS_RETRY }
            }
            other => WorkerError::Handoff(other.to_string()),
        })?;
        Ok(Expectation { pending, context: name })
    }

    async fn call(&self, pending: &PendingHandoff) -> Result<Answers<'_>, WorkerError> {
        let channel = self.node.channels.get(self.peer, Role::Prefill);
        let request = v1::PrefillRequest {
            generation: Some(v1::Generation::under_seal(self.work, self.work_seal)),
            deadline_ms: cluster::rpc::remaining_ms(self.deadline),
            incarnation: self.peer.incarnation.0,
            target: Some(v1::HandoffTarget {
                handoff_id: pending.id().to_vec(),
                address: Some((&self.node.address).into()),
                transports: self.inbound.transports.clone(),
                held_blocks: pending.held_blocks(),
                kv_layout: self.node.fingerprint.kv_layout.to_string(),
            }),
            start_within_ms: self.start_by.map_or(0, |at| cluster::rpc::remaining_ms(at).max(1)),
            waited_us: cluster::rpc::waited_us(self.asked_at),
            seal: 0,
        };
        let request = request.sealed(0);
        let seals = SealChain::after(request.seal);
        let mut client =
            PrefillClient::new(Readable::of(channel)).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let call = client.prefill(cluster::rpc::request(request, self.deadline));
        let begun = self.node.channels.begun(self.peer, call).await;
        let response = begun.map_err(|status| WorkerError::peer(&self.peer.worker, &status))?;
        let integrity = &self.node.integrity;
        Ok(Answers { integrity, stream: response.into_inner(), seals })
    }

    /// Follows the prefill worker; the first tokens go straight on to the router.
    async fn listen(
        &self,
        mut answers: Answers<'_>,
        context: BlockHash,
        responses: &Responses<v1::GenerateResponse>,
        delivered: &mut Vec<SampledToken>,
    ) -> Result<Told, WorkerError> {
        let mut told = Told { finished: Vec::new(), committed: None };
        while let Some(answer) = answers.next(self.peer).await? {
            match answer.event {
                Some(from_peer::Event::Started(started)) => {
                    let started = to_router::Started {
                        path: to_router::Path::Handoff.into(),
                        prefill_worker_id: self.peer.worker.to_string(),
                        cached_tokens: started.cached_tokens,
                    };
                    responses.send(response(to_router::Event::Started(started))).await?;
                }
                Some(from_peer::Event::PromptScores(scores)) => {
                    let scores = to_router::PromptScores { tokens: scores.tokens };
                    responses.send(response(to_router::Event::PromptScores(scores))).await?;
                }
                Some(from_peer::Event::FirstTokens(first)) => {
                    self.check_first(&first, context)?;
                    delivered.extend(first.tokens.iter().cloned().map(SampledToken::from));
                    self.pass_on(first, &mut told, responses).await?;
                }
                Some(from_peer::Event::Committed(committed)) => told.committed = Some(committed),
                None => return Err(self.broken("it sent an empty message")),
            }
        }
        Ok(told)
    }

    /// First tokens are the ones asked for, behind the context that was sent, or they don't go on.
    fn check_first(
        &self,
        first: &from_peer::FirstTokens,
        context: BlockHash,
    ) -> Result<(), WorkerError> {
        if context_name(&first.context)? != context {
            return Err(self.broken("its first tokens follow another context"));
        }
        let index = self.work.generated.len() as u32;
        let wanted = if index < self.work.stop.max_tokens { &self.work.choices[..] } else { &[] };
        let vocab_size = self.node.engine.info().vocab_size;
        let fits = |token: &v1::SampledToken| token.index == index && token.token < vocab_size;
        let are_all = first.tokens.iter().map(|token| token.choice).eq(wanted.iter().copied());
        if are_all && first.tokens.iter().all(fits) {
            return Ok(());
        }
        Err(self.broken("a first token is missing, or is none"))
    }

    async fn pass_on(
        &self,
        first: from_peer::FirstTokens,
        told: &mut Told,
        responses: &Responses<v1::GenerateResponse>,
    ) -> Result<(), WorkerError> {
        let tokens = to_router::Tokens { tokens: first.tokens };
        responses.send(response(to_router::Event::Tokens(tokens))).await?;
        for finished in first.finished {
            told.finished.push(finished.choice);
            responses.send(response(to_router::Event::Finished(finished))).await?;
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> WorkerError {
        WorkerError::Broken { worker: self.peer.worker.to_string(), what: what.to_owned() }
    }
}

// === impl Answers ===

impl Answers<'_> {
    async fn next(&mut self, peer: &Address) -> Result<Option<v1::PrefillResponse>, WorkerError> {
        let answer = self.stream.try_next().await;
        let answer = answer.map_err(|status| WorkerError::peer(&peer.worker, &status))?;
        let Some(mut answer) = answer else { return Ok(None) };
        self.integrity.next("prefill-answer", &mut self.seals, &mut answer)?;
        Ok(Some(answer))
    }
}

fn response(event: to_router::Event) -> v1::GenerateResponse {
    v1::GenerateResponse { event: Some(event), seal: 0 }
}
