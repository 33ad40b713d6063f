//! Who is here: the requests, their sequences, and how they leave.

use std::sync::Arc;
use std::time::Instant;

use kv_cache::{BlockTable, TokenId};
use scheduler::batching::{Due, PrefixHit, SequenceKey, SequenceView, Standing};
use words::{FinishReason, SampledToken, Targets};

use super::ordered::OrderedMap;
use super::request::{Request, Terms};
use crate::clock;
use crate::engine::sequence::Sequence;
use crate::engine::stats::EngineStats;
use crate::handle::{Accepted, Ends, Event, Exchange, Mode, SequenceError, Submission};

/// All requests and sequences. Every sequence has its request, every request a sequence.
pub(super) struct Roster {
    pub(super) requests: OrderedMap<u64, Request>,
    /// Oldest first.
    pub(super) sequences: OrderedMap<SequenceKey, Sequence>,
    /// Blocks of sequences that have left and that a step in flight may still write to.
    limbo: Vec<(SequenceKey, Sequence)>,
    /// Steps up to this one have ended.
    collected: u64,
    /// Of requests that have none of their own.
    targets: Targets,
    pub(super) exchange: Arc<Exchange>,
}

// === impl Roster ===

impl Roster {
    pub(super) fn new(exchange: Arc<Exchange>, targets: Targets) -> Self {
        Self {
            requests: OrderedMap::new(),
            sequences: OrderedMap::new(),
            limbo: Vec::new(),
            collected: 0,
            targets,
            exchange,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Notes that the steps up to `number` have ended: nothing writes to the blocks of those that
    /// left before it any more.
    pub(super) fn note_collected(&mut self, number: u64) {
        self.collected = number;
        let ended: Vec<_> =
            self.limbo.extract_if(.., |(_, sequence)| !sequence.is_written_after(number)).collect();
        for (key, sequence) in ended {
            self.release(key, sequence);
        }
    }

    /// Takes in a submission; one that has nothing left to do ends at once. Returns how many did.
    pub(super) fn enter(&mut self, accepted: Accepted) -> u64 {
        let Accepted { request: number, submission, hasher, hashes, events, place } = accepted;
        let Submission { work, mode, deadline, arrived } = submission;
        let info = &self.exchange.info;
        let request = Request::new(Terms {
            work: Arc::clone(&work),
            events,
            hasher,
            place,
            deadline,
            prefill_only: matches!(mode, Mode::Prefill),
            resumed: matches!(mode, Mode::Resume { .. }),
            ends: Ends::new(&work, info),
            targets: work.targets.under(&self.targets),
            arrived,
        });
        self.requests.insert(number, request);
        let whole = |table| {
            let output = work.generated.to_vec();
            Sequence::new(number, &work.choices, output, table, hashes.clone())
        };
        match mode {
            Mode::Resume { table, first } if !first.is_empty() => {
                let sequence = whole(table);
                let first = first.iter().map(|token| (token.choice, token.token));
                self.part(&sequence, first, clock::now());
            }
            // Nothing was to be generated: the table only tells that the prompt was computed.
            Mode::Resume { table, .. } => self.add(whole(table)),
            Mode::Generate | Mode::Prefill => self.add(whole(BlockTable::new(info.block_tokens))),
        }
        self.end_complete(number)
    }

    /// What the planner sees, oldest first.
    ///
    /// - `begins`: when the step does that is planned.
    pub(super) fn views(&self, begins: Instant) -> Vec<SequenceView> {
        let view = |sequence: &Sequence| {
            let request = self.request_of(sequence);
            let due = Due::of(sequence.progress(request.arrived, begins), &request.targets);
            sequence.view(request, due)
        };
        self.sequences.values().map(view).collect()
    }

    /// Whether anybody's prompt has more to be computed than a token.
    pub(super) fn has_prompts(&self) -> bool {
        let remaining = |sequence: &Sequence| {
            let prompt = &self.request_of(sequence).prompt;
            sequence.context_tokens(prompt) - sequence.table.tokens()
        };
        self.sequences.values().any(|sequence| remaining(sequence) > 1)
    }

    /// Adds what is here to `stats`.
    pub(super) fn count(&self, stats: &mut EngineStats) {
        for sequence in self.sequences.values() {
            let request = self.request_of(sequence);
            let width = sequence.width();
            stats.paused += if request.paused { width } else { 0 };
            if !request.has_started() {
                // The queue counts it.
                continue;
            }
            match sequence.standing {
                Standing::Running => stats.running += width,
                Standing::Waiting => stats.waiting += width,
            }
            let filled = sequence.table.tokens();
            let remaining = sequence.context_tokens(&request.prompt) - filled;
            stats.context_tokens += filled as u64;
            if remaining > 1 {
                stats.backlog.add(request.client, remaining as u64);
            }
        }
    }

    pub(super) fn pair(&self, key: SequenceKey) -> Option<(&Request, &Sequence)> {
        Some((self.requests.get(key.request)?, self.sequences.get(key)?))
    }

    pub(super) fn pair_mut(&mut self, key: SequenceKey) -> Option<(&mut Request, &mut Sequence)> {
        Some((self.requests.get_mut(key.request)?, self.sequences.get_mut(key)?))
    }

    /// Pins what the prefix cache has for a waiting sequence.
    ///
    /// Prompt tokens that need scores need their rows computed, so nothing is looked up for them.
    pub(super) fn pin_prefix(&mut self, key: SequenceKey) -> PrefixHit {
        let exchange = Arc::clone(&self.exchange);
        let Some((request, sequence)) = self.pair_mut(key) else { return PrefixHit::default() };
        if !exchange.info.prefix_cache || request.wants_scores() {
            return PrefixHit::default();
        }
        let before = exchange.pool.counts().available();
        let tokens = sequence.pin_prefix(&exchange.pool, &request.hasher, &request.prompt);
        let blocks_taken = before.saturating_sub(exchange.pool.counts().available());
        PrefixHit { tokens: tokens as u32, blocks_taken }
    }

    /// Gives back what was pinned for sequences that weren't admitted after all.
    pub(super) fn unpin<'a>(&mut self, probed: impl Iterator<Item = &'a SequenceKey>) {
        for key in probed {
            if let Some(sequence) = self.sequences.get_mut(*key)
                && sequence.standing == Standing::Waiting
            {
                sequence.release();
            }
        }
    }

    /// Takes a sequence's blocks and place.
    pub(super) fn preempt(&mut self, key: SequenceKey) {
        if let Some(sequence) = self.sequences.get_mut(key) {
            sequence.preempt();
            self.exchange.live.remove(key);
        }
    }

    /// Takes a sequence's place, and leaves it its blocks.
    pub(super) fn park(&mut self, key: SequenceKey) {
        if let Some(sequence) = self.sequences.get_mut(key) {
            sequence.park();
        }
    }

    /// What a request's sequences have generated, tokens each.
    pub(super) fn outputs(&self, request: u64) -> Vec<u32> {
        let output = |key: SequenceKey| self.sequences.get(key).map(|it| it.output.len() as u32);
        self.keys_of(request).into_iter().filter_map(output).collect()
    }

    /// Replaces a sequence whose prompt is computed by one for each of its choices.
    ///
    /// - `at`: when the first tokens were there.
    pub(super) fn part_choices(&mut self, key: SequenceKey, first: &[(u32, TokenId)], at: Instant) {
        if let Some(sequence) = self.sequences.remove(key) {
            self.part(&sequence, first.iter().copied(), at);
        }
    }

    /// Ends a choice; without a reason where that has been told already. Says whether it was its
    /// request's last.
    pub(super) fn finish(
        &mut self,
        key: SequenceKey,
        choice: u32,
        reason: Option<FinishReason>,
    ) -> bool {
        self.drop_sequence(key);
        let Some(request) = self.requests.get_mut(key.request) else { return false };
        request.open_choices -= 1;
        let event = reason.map(|reason| Event::Finished { choice, reason });
        if request.open_choices > 0 {
            event.into_iter().for_each(|event| request.events.send(event));
            return false;
        }
        if let Some(request) = self.requests.remove(key.request) {
            match event {
                Some(event) => request.events.finish(event),
                None => request.events.end(),
            }
        }
        true
    }

    /// Ends a prompt-only request: its blocks go to whoever listens.
    pub(super) fn hand_over(&mut self, key: SequenceKey, first: Vec<SampledToken>) {
        let Some(mut sequence) = self.sequences.remove(key) else { return };
        let block_tokens = self.exchange.info.block_tokens;
        if let Some(request) = self.requests.remove(key.request) {
            let context = sequence.name(&request.hasher, &request.prompt, block_tokens);
            let context = context.expect("a prompt has tokens");
            let ended_before = request.ends.reason_after(&sequence.output);
            let count = sequence.output.len() + 1;
            for choice in sequence.choices() {
                let token = first.iter().find(|token| token.choice == choice);
                let reason = match token {
                    Some(first) => request.ends.reason(first.token, count),
                    None => ended_before.or(Some(FinishReason::Length)),
                };
                let finished = reason.map(|reason| Event::Finished { choice, reason });
                finished.into_iter().for_each(|event| request.events.send(event));
            }
            let table = Box::new(sequence.table);
            request.events.finish(Event::Prefilled { table, first, context });
        }
        self.exchange.live.remove(key);
    }

    /// Ends a request without a result; its blocks come free.
    pub(super) fn fail(&mut self, request: u64, failure: SequenceError) {
        if let Some(ended) = self.remove(request) {
            ended.events.finish(Event::Failed(failure));
        }
    }

    /// Takes all blocks of a request out of the prefix cache, those included that it has from there.
    /// Returns how many were in it.
    pub(super) fn unpublish(&self, request: u64) -> usize {
        let tables = self.keys_of(request).into_iter().filter_map(|key| self.sequences.get(key));
        let blocks = tables.flat_map(|sequence| sequence.table.blocks());
        blocks.filter(|block| block.unseal()).count()
    }

    /// Forgets a request nobody waits for.
    pub(super) fn remove(&mut self, request: u64) -> Option<Request> {
        for key in self.keys_of(request) {
            self.drop_sequence(key);
        }
        self.requests.remove(request)
    }

    /// Every sequence has one.
    pub(super) fn request_of(&self, sequence: &Sequence) -> &Request {
        self.requests.get(sequence.key.request).expect("a sequence leaves before its request")
    }

    fn add(&mut self, sequence: Sequence) {
        if sequence.table.tokens() > 0 {
            self.exchange.live.set(sequence.key, &sequence.table);
        }
        self.sequences.insert(sequence.key, sequence);
    }

    fn part(
        &mut self,
        sequence: &Sequence,
        first: impl Iterator<Item = (u32, TokenId)>,
        at: Instant,
    ) {
        self.exchange.live.remove(sequence.key);
        for (choice, token) in first {
            self.add(sequence.fork(choice, token, at));
        }
    }

    /// Ends choices of a new request that are complete as they came. Returns how many requests
    /// that ended: none or one.
    fn end_complete(&mut self, request: u64) -> u64 {
        let mut ended = 0;
        for key in self.keys_of(request) {
            let Some((request, sequence)) = self.pair_mut(key) else { continue };
            let nothing_wanted = request.resumed && sequence.output.is_empty();
            let reason = request.ends.reason_after(&sequence.output);
            let reason = reason.or(nothing_wanted.then_some(FinishReason::Length));
            let Some(reason) = reason else { continue };
            request.start(sequence.table.tokens());
            if request.prefill_only {
                self.hand_over(key, Vec::new());
                return 1;
            }
            let told_before = request.resumed;
            for choice in sequence.choices().collect::<Vec<_>>() {
                let reason = (!told_before).then_some(reason);
                ended += u64::from(self.finish(key, choice, reason));
            }
        }
        ended
    }

    fn keys_of(&self, request: u64) -> Vec<SequenceKey> {
        let key = |choice| SequenceKey { request, choice };
        self.sequences.keys_within(key(0), key(u32::MAX)).collect()
    }

    fn drop_sequence(&mut self, key: SequenceKey) {
        let Some(sequence) = self.sequences.remove(key) else { return };
        if sequence.is_written_after(self.collected) {
            self.limbo.push((key, sequence));
        } else {
            self.release(key, sequence);
        }
    }

    /// First the blocks, then the entry: an audit in between sees no orphan.
    fn release(&self, key: SequenceKey, sequence: Sequence) {
        drop(sequence);
        self.exchange.live.remove(key);
    }
}
