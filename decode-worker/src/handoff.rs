//! One attempt to have a prompt computed elsewhere and its KV blocks brought here.

use std::sync::Arc;
use std::time::Instant;

use engine::{EventStream, Mode, Submission};
use futures::TryStreamExt as _;
use kv_cache::{BlockTable, TokenId};
use kv_transfer::{Expected, PendingHandoff, TransferError};
use proto::v1;
use proto::v1::generate_response as to_router;
use proto::v1::prefill_client::PrefillClient;
use proto::v1::prefill_response as from_peer;
use scheduler::{Address, Generation, SampledToken};
use tonic::Streaming;
use worker::call::Responses;
use worker::{Node, WorkerError};

use crate::shared::Shared;

/// One attempt with one prefill worker.
pub(crate) struct Handoff<'a> {
    pub(crate) node: &'a Node,
    pub(crate) shared: &'a Shared,
    pub(crate) work: &'a Arc<Generation>,
    pub(crate) peer: &'a Address,
    /// Counted from 1.
    pub(crate) attempt: u32,
    pub(crate) deadline: Instant,
}

/// How an attempt ended well.
pub(crate) enum HandedOver {
    /// Every choice ended with its first token: there is nothing to decode.
    Finished,
    /// The blocks were verified and the engine goes on from them.
    Resumed(EventStream),
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
        let pending = self.expect().await?;
        let stream = self.call(&pending).await?;
        let told = self.listen(stream, responses, delivered).await?;
        if told.finished.len() == self.work.choices.len() {
            return Ok(HandedOver::Finished);
        }
        let committed = told.committed.ok_or_else(|| self.broken("it ended without a commit"))?;
        let table = pending
            .verified(self.deadline)
            .await
            .map_err(|error| WorkerError::Handoff(error.to_string()))?;
        // The engine owns the blocks from here on, before anything else is waited for.
        let events = self.node.engine.submit(Submission {
            work: self.work.clone(),
            mode: Mode::Resume { table, first: std::mem::take(delivered) },
            deadline: Some(self.deadline),
        })?;
        let took = cluster::clock::now() - started;
        let done = to_router::HandoffDone {
            transport: committed.transport,
            bytes: committed.bytes,
            blocks: committed.blocks,
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            attempts: self.attempt,
        };
        self.shared.stats.handed_over(took, done.bytes);
        responses.send(response(to_router::Event::HandoffDone(done))).await?;
        Ok(HandedOver::Resumed(events))
    }

    /// Takes a credit for the blocks, and notes which leading ones are here already.
    async fn expect(&self) -> Result<PendingHandoff, WorkerError> {
        let engine = &self.node.engine;
        let context = self.work.context();
        let held = self.held_blocks(&context);
        let blocks = engine.info().layout.blocks_for(context.len()) - held.blocks().len();
        let running = || engine.stats().running;
        let reservation = self.shared.credits.take(engine.pool(), blocks as u32, running).await?;
        let tokens = context.len() as u32;
        let expected = Expected { reservation, held, tokens, deadline: self.deadline };
        self.shared.receiver.expect(expected).map_err(|error| match error {
            TransferError::TooManyHandoffs { .. } => WorkerError::Busy(error.to_string()),
            other => WorkerError::Handoff(other.to_string()),
        })
    }

    /// The leading blocks of `context` that this worker's cache has. Never the last one: it is
    /// written to by the tokens that follow.
    fn held_blocks(&self, context: &[TokenId]) -> BlockTable {
        let (engine, block_tokens) = (&self.node.engine, self.node.engine.info().block_tokens);
        let full_blocks = (context.len() - 1) / block_tokens as usize;
        if !engine.info().prefix_cache || full_blocks == 0 {
            return BlockTable::new(block_tokens);
        }
        let leading = &context[..full_blocks * block_tokens as usize];
        let hashes = engine.hasher(&self.work.salt).hash_blocks(None, leading, block_tokens);
        BlockTable::from_prefix(block_tokens, engine.pool().match_prefix(&hashes, leading))
    }

    async fn call(
        &self,
        pending: &PendingHandoff,
    ) -> Result<Streaming<v1::PrefillResponse>, WorkerError> {
        let channel = self.node.channels.get(self.peer);
        let request = v1::PrefillRequest {
            generation: Some(self.work.as_ref().into()),
            deadline_ms: cluster::rpc::remaining_ms(self.deadline),
            incarnation: self.peer.incarnation.0,
            target: Some(v1::HandoffTarget {
                handoff_id: pending.id().to_vec(),
                address: Some((&self.node.address).into()),
                transports: self.shared.transports.clone(),
                held_blocks: pending.held_blocks(),
                kv_layout: self.node.fingerprint.kv_layout.clone(),
            }),
        };
        let response = PrefillClient::new(channel)
            .prefill(cluster::rpc::request(request, self.deadline))
            .await
            .map_err(|status| WorkerError::peer(&self.peer.worker, &status))?;
        Ok(response.into_inner())
    }

    /// Follows the prefill worker; the first tokens go straight on to the router.
    async fn listen(
        &self,
        mut stream: Streaming<v1::PrefillResponse>,
        responses: &Responses<v1::GenerateResponse>,
        delivered: &mut Vec<SampledToken>,
    ) -> Result<Told, WorkerError> {
        let mut told = Told { finished: Vec::new(), committed: None };
        while let Some(message) = stream
            .try_next()
            .await
            .map_err(|status| WorkerError::peer(&self.peer.worker, &status))?
        {
            match message.event {
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
                    delivered.extend(first.tokens.iter().cloned().map(SampledToken::from));
                    self.pass_on(first, &mut told, responses).await?;
                }
                Some(from_peer::Event::Committed(committed)) => told.committed = Some(committed),
                None => return Err(self.broken("it sent an empty message")),
            }
        }
        Ok(told)
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
        WorkerError::Handoff(format!("{}: {what}", self.peer.worker))
    }
}

fn response(event: to_router::Event) -> v1::GenerateResponse {
    v1::GenerateResponse { event: Some(event) }
}
