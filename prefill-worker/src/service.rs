//! `baton.v1.Prefill`: computes a prompt and pushes its KV blocks while doing so.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use cluster::security::Shown;
use engine::{Event, EventStream, Mode, Submission};
use kv_cache::{BadLayout, BlockHash, BlockTable, HandoffId, KvLayout, Misfit};
use kv_transfer::transport::Target;
use kv_transfer::{FilledPages, PageQueue, SendJob, Sender, TransferError};
use proto::convert::required;
use proto::v1;
use proto::v1::prefill_response::{Committed, Event as Wire, FirstTokens, PromptScores, Started};
use tonic::{Request, Response, Status};
use words::{Address, Generation, Role, SampledToken};
use worker::call::{Call, ResponseStream, Responses};
use worker::local::SCORES_MAX;
use worker::{Ask, Node, Peers, WorkerError};

use crate::prompts::Prompts;

/// Serves prompts to decode workers.
pub(crate) struct PrefillService {
    node: Node,
    sender: Sender,
    prompts: Arc<Prompts>,
}

/// One prompt for one decode worker.
struct Prompt {
    node: Node,
    sender: Sender,
    prompts: Arc<Prompts>,
    work: Arc<Generation>,
    destination: Destination,
    deadline: Instant,
    start_by: Option<Instant>,
    asked_at: Instant,
}

/// Where a prompt's blocks go.
struct Destination {
    id: HandoffId,
    address: Address,
    target: Target,
    transports: Vec<String>,
    held_blocks: u32,
}

/// A computed prompt.
struct Prefilled {
    table: BlockTable,
    first: Vec<SampledToken>,
    /// The name of what the table holds KV of.
    context: BlockHash,
    /// Choices that ended with their first token.
    finished: Vec<v1::Finished>,
}

// === impl PrefillService ===

impl PrefillService {
    pub(crate) fn new(node: Node, sender: Sender, prompts: Arc<Prompts>) -> Self {
        Self { node, sender, prompts }
    }
}

#[async_trait]
impl v1::prefill_server::Prefill for PrefillService {
    type PrefillStream = ResponseStream<v1::PrefillResponse>;

    async fn prefill(
        &self,
        request: Request<v1::PrefillRequest>,
    ) -> Result<Response<Self::PrefillStream>, Status> {
        let caller = worker::call::caller(&request);
        let mut request = request.into_inner();
        let seal = self.node.integrity.open("prefill", &mut request)?;
        let permit = self.node.admit(request.incarnation)?;
        let call = Call::new(
            permit,
            self.node.capped_ms(request.deadline_ms),
            request.start_within_ms,
            seal,
        )
        .waiting(request.waited_us);
        let prompt = Prompt {
            node: self.node.clone(),
            sender: self.sender.clone(),
            prompts: self.prompts.clone(),
            work: Arc::new(self.node.integrity.generation(request.generation)?),
            destination: Destination::from_wire(&self.node, &caller, request.target)?,
            deadline: call.deadline,
            start_by: call.start_by,
            asked_at: call.asked_at,
        };
        Ok(call.spawn(self.node.life.tasks(), |responses| prompt.run(responses)))
    }
}

// === impl Destination ===

impl Destination {
    /// - `caller`: who asks for the blocks.
    fn from_wire(
        node: &Node,
        caller: &Shown,
        wire: Option<v1::HandoffTarget>,
    ) -> Result<Self, WorkerError> {
        let wire = required("target", wire)?;
        check_layout(&node.engine.info().layout, &wire.kv_layout)?;
        let address: Address = required("address", wire.address)?.try_into()?;
        Peers::check_speaker(caller, &address)?;
        Ok(Self {
            id: proto::convert::transfer::handoff_id(&wire.handoff_id)?,
            target: Target {
                worker: address.worker.to_string(),
                uri: address.uri.clone(),
                incarnation: address.incarnation.0,
            },
            address,
            transports: wire.transports,
            held_blocks: wire.held_blocks,
        })
    }
}

// === impl Prompt ===

impl Prompt {
    async fn run(self, responses: Responses<v1::PrefillResponse>) -> Result<(), WorkerError> {
        self.node.peers.check(&self.destination.address, Role::Decode).await?;
        let ask = Ask::to_prefill(&self.node.engine, &self.work).starting_by(self.start_by);
        let inside = self.prompts.entrance.enter(ask).await?;
        self.prompts.outgoing.room().await;
        let submission = Submission::new(self.work.clone(), Mode::Prefill);
        let submission = submission.by(self.deadline).asked_at(self.asked_at);
        let mut events = self.node.engine.submit(submission)?;
        let pages = self.sender.start(self.job()).map_err(handoff_failed)?;
        let prefilled = self.compute(&mut events, &pages, &responses).await?;
        drop(inside);
        self.close(prefilled, pages, &responses).await
    }

    fn job(&self) -> SendJob {
        let tokens = self.work.context_tokens();
        let region = self.node.engine.region();
        let blocks = region.layout().blocks_for(tokens) as u32;
        SendJob {
            id: self.destination.id,
            target: self.destination.target.clone(),
            transports: self.destination.transports.clone(),
            blocks: self.destination.held_blocks.min(blocks)..blocks,
            tokens: tokens as u32,
            region,
            deadline: self.deadline,
        }
    }

    /// Follows the engine through the prompt; every filled page goes on its way at once.
    async fn compute(
        &self,
        events: &mut EventStream,
        pages: &PageQueue,
        responses: &Responses<v1::PrefillResponse>,
    ) -> Result<Prefilled, WorkerError> {
        let mut finished = Vec::new();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                // Nobody will take the blocks, so nobody needs the prompt.
                error = pages.failed() => return Err(handoff_failed(error)),
            };
            match event {
                Some(Event::Started { cached_tokens }) => {
                    responses.send(response(Wire::Started(Started { cached_tokens }))).await?;
                }
                Some(Event::PagesFilled(filled)) => {
                    if let Some(unsent) = beyond(filled, self.destination.held_blocks) {
                        pages.push(unsent).await.map_err(handoff_failed)?;
                    }
                }
                Some(Event::PromptLogprobs(scores)) => {
                    for part in scores.chunks(SCORES_MAX) {
                        let tokens = part.iter().map(Into::into).collect();
                        let scores = PromptScores { tokens };
                        responses.send(response(Wire::PromptScores(scores))).await?;
                    }
                }
                Some(Event::Finished { choice, reason }) => {
                    finished.push(v1::Finished::new(choice, reason));
                }
                Some(Event::Prefilled { table, first, context }) => {
                    return Ok(Prefilled { table: *table, first, context, finished });
                }
                Some(Event::Failed(error)) => return Err(error.into()),
                Some(Event::Token(_)) => {}
                None => return Err(WorkerError::Engine("a prompt ended without a result".into())),
            }
        }
    }

    /// Sends the first tokens, which the client waits for, then closes the hand-off.
    async fn close(
        &self,
        prefilled: Prefilled,
        pages: PageQueue,
        responses: &Responses<v1::PrefillResponse>,
    ) -> Result<(), WorkerError> {
        let all_finished = prefilled.finished.len() == self.work.choices.len();
        let _table = self.prompts.outgoing.hold(prefilled.table);
        let tokens = prefilled.first.iter().map(Into::into).collect();
        let context = prefilled.context;
        let (finished, name) = (prefilled.finished, context.to_bytes().to_vec());
        let first = FirstTokens { tokens, finished, context: name };
        responses.send(response(Wire::FirstTokens(first))).await?;
        if all_finished {
            // Nobody will read the blocks: the receiver gives its own back as well.
            return Ok(());
        }
        // The prompt is computed: from here on it is the hand-off alone that takes time.
        let computed = cluster::clock::now();
        let report = pages.commit(context).await.map_err(handoff_failed)?;
        let added = cluster::clock::now().saturating_duration_since(computed);
        self.prompts.sent.lock().add(self.work.context_tokens() as u32, added);
        let committed = Committed {
            transport: report.transport.to_owned(),
            bytes: report.bytes,
            blocks: report.blocks,
            resent_pages: report.resent_pages,
        };
        responses.send(response(Wire::Committed(committed))).await
    }
}

fn response(event: Wire) -> v1::PrefillResponse {
    v1::PrefillResponse { event: Some(event), seal: 0 }
}

/// Refuses a decode worker whose memory can't take the pages that are computed here.
fn check_layout(ours: &KvLayout, theirs: &str) -> Result<(), WorkerError> {
    let read = theirs.parse::<KvLayout>().map_err(|bad: BadLayout| bad.reason);
    let fits = read.and_then(|it| ours.fits(&it).map_err(|misfit: Misfit| misfit.to_string()));
    fits.map_err(|reason| {
        let (ours, theirs) = (ours.to_string(), theirs.to_owned());
        WorkerError::LayoutMismatch { ours, theirs, reason }
    })
}

fn handoff_failed(error: TransferError) -> WorkerError {
    match error {
        TransferError::Deadline => WorkerError::Timeout("handing blocks over"),
        other => WorkerError::Handoff(other.to_string()),
    }
}

/// The part of `filled` that the receiver doesn't hold already.
fn beyond(filled: engine::FilledPages, held_blocks: u32) -> Option<FilledPages> {
    let engine::FilledPages { layers, first_block, mut blocks, fence, .. } = filled;
    let held = held_blocks.saturating_sub(first_block) as usize;
    if held >= blocks.len() {
        return None;
    }
    blocks.drain(..held);
    Some(FilledPages { layers, first_block: first_block + held as u32, blocks, fence })
}
