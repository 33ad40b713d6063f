//! One submission while the engine works for it.

use std::sync::Arc;
use std::time::Instant;

use kv_cache::{BlockHandle, ChainHasher, Fence, TokenId};
use words::{ClientId, FinishReason, Generation, SampledToken, Sampling, Targets};

use crate::handle::{Ends, Event, EventSender, FilledPages, QueuePlace};

/// A submission's state, apart from its sequences.
///
/// What each step reads of the work is here, too: a step goes through hundreds of requests, and what lies elsewhere
/// costs it a hundred nanoseconds each.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) prompt: Arc<[TokenId]>,
    pub(super) sampling: Sampling,
    pub(super) client: ClientId,
    /// Alternatives to return with the scores of prompt tokens, where those are asked for.
    pub(super) prompt_logprobs: Option<u32>,
    pub(super) events: EventSender,
    pub(super) hasher: ChainHasher,
    /// Ends with the prompt, to be continued elsewhere.
    pub(super) prefill_only: bool,
    /// Its prompt was computed elsewhere.
    pub(super) resumed: bool,
    /// Its reader has stalled.
    pub(super) paused: bool,
    /// Choices that haven't ended.
    pub(super) open_choices: usize,
    /// Prompt tokens before this index need no more scores.
    pub(super) scored: usize,
    /// Where its sequences end.
    pub(super) ends: Ends,
    /// How soon its tokens are wanted.
    pub(super) targets: Targets,
    /// When its client asked.
    pub(super) arrived: Instant,
    deadline: Option<Instant>,
    /// Given up when it starts.
    place: Option<QueuePlace>,
    /// Blocks whose pages were announced in full.
    announced_blocks: usize,
}

/// What a request is made from.
pub(super) struct Terms {
    pub(super) work: Arc<Generation>,
    pub(super) events: EventSender,
    pub(super) hasher: ChainHasher,
    pub(super) place: QueuePlace,
    pub(super) deadline: Option<Instant>,
    pub(super) prefill_only: bool,
    /// Its prompt was computed elsewhere.
    pub(super) resumed: bool,
    pub(super) ends: Ends,
    pub(super) targets: Targets,
    pub(super) arrived: Instant,
}

// === impl Request ===

impl Request {
    pub(super) fn new(terms: Terms) -> Self {
        let Terms { work, events, hasher, place, deadline, prefill_only, resumed, .. } = terms;
        let Terms { ends, targets, arrived, .. } = terms;
        // Scores come before the first token, so whoever has tokens has had them.
        let scores = work.prompt_logprobs.is_some() && work.generated.is_empty() && !resumed;
        Self {
            // The first token of a prompt has no score.
            scored: if scores { 1 } else { work.prompt.len() },
            prompt: Arc::clone(&work.prompt),
            sampling: work.sampling.clone(),
            client: work.client,
            prompt_logprobs: work.prompt_logprobs,
            open_choices: work.choices.len(),
            paused: false,
            announced_blocks: 0,
            place: Some(place),
            events,
            hasher,
            prefill_only,
            resumed,
            ends,
            targets,
            arrived,
            deadline,
        }
    }

    /// Whether prompt tokens still have to be scored, which needs their rows computed.
    pub(super) fn wants_scores(&self) -> bool {
        self.scored < self.prompt.len()
    }

    /// Whether the token after `count` others can be fed to the next step before the host has seen
    /// it: nothing but its number decides what that step does.
    pub(super) fn feeds_itself(&self, count: usize) -> bool {
        let sampling = &self.sampling;
        let counts_tokens = sampling.repetition_penalty != 1.0
            || sampling.frequency_penalty != 0.0
            || sampling.presence_penalty != 0.0;
        !self.prefill_only && !counts_tokens && !self.ends.is_full(count + 1)
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Leaves the queue; says so the first time only.
    pub(super) fn start(&mut self, cached_tokens: usize) {
        if self.place.take().is_some() {
            self.events.send(Event::Started { cached_tokens: cached_tokens as u32 });
        }
    }

    pub(super) fn has_started(&self) -> bool {
        self.place.is_none()
    }

    /// Sends a choice's token, its `count`th; says why the choice ends with it, if it does.
    pub(super) fn hear(&self, token: SampledToken, count: usize) -> Option<FinishReason> {
        let reason = self.ends.reason(token.token, count);
        self.events.send(Event::Token(token));
        reason
    }

    /// Announces pages of blocks that weren't before.
    ///
    /// - `blocks`: the sequence's, up to the last that is final.
    pub(super) fn announce(&self, blocks: &[BlockHandle], pages: Pages) {
        if !self.prefill_only || blocks.len() <= self.announced_blocks {
            return;
        }
        self.events.send_now(Event::PagesFilled(FilledPages {
            layers: pages.layers,
            first_block: self.announced_blocks as u32,
            blocks: blocks[self.announced_blocks..].to_vec(),
            fence: pages.fence,
            last_chunk: pages.last_chunk,
        }));
    }

    /// Notes that the first `blocks` blocks have been announced in all layers.
    pub(super) fn note_announced(&mut self, blocks: usize) {
        self.announced_blocks = self.announced_blocks.max(blocks);
    }
}

/// Which pages are announced, apart from the blocks.
pub(super) struct Pages {
    pub(super) layers: std::ops::Range<u32>,
    pub(super) fence: Fence,
    pub(super) last_chunk: bool,
}
