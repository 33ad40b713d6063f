//! The loop: commands in, `plan -> bind -> submit -> collect -> deliver`, events out.
//!
//! Where the device works on its own, the next step is planned and submitted while one is in flight,
//! on the assumption that nobody's answer ends with it: tokens go from one step to the next on the
//! device. A sequence that did end has had a row in vain, and its blocks are kept until that row
//! is done. Whatever needs to see a token first (penalties, parting choices, a preemption) waits.

mod intake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use kv_cache::{BlockHandle, Fence};
use scheduler::batching::{self, BatchLimits, Pace, Plan, PlannedRow, SequenceKey, Standing};
use scheduler::cost::StepSeed;
use words::{FinishReason, PromptLogprob, SampledToken, Targets};

use super::StepModel;
use super::request::Pages;
use super::roster::Roster;
use super::sequence::Sequence;
use super::step::{Flight, Outcome, Part, Step};
use crate::batch::Sampled;
use crate::clock;
use crate::engine::stats::Meter;
use crate::error::{EngineError, LogitsFault};
use crate::handle::{Command, Event, Exchange, SequenceError};
use crate::tiers::Tiers;

/// The longest step where others may come to the device, which then wait for it: 512 tokens of 8B on an H200 take 10.9 to 11.5
/// ms, and some parts in a hundred are held against a forecast. A ms less would be a tile less, and a sixth of the rate.
const SHARED_STEP: Duration = Duration::from_millis(12);

/// The engine's thread: owner of the model and of everything that is done with it.
pub(super) struct Core<M: StepModel> {
    model: M,
    exchange: Arc<Exchange>,
    limits: BatchLimits,
    roster: Roster,
    meter: Meter,
    /// Memory below the device's, if there is any.
    tiers: Option<Tiers>,
    /// The step that runs while the next is prepared.
    flight: Option<Flight<M::Ticket>>,
    /// Steps submitted.
    submitted: u64,
    /// When the results of the latest step were there.
    collected_at: Instant,
    /// When the device came to its end, as far as that is known. The results were seen later if the next one was still being
    /// submitted.
    ended_at: Instant,
    /// Whether the latest step was one without prefill.
    decodes: bool,
    /// Whether anybody has come since the readers were last looked at: one may have left before.
    entered: bool,
    /// How long the device was waited for since the thread last took in commands.
    waited: Duration,
    /// Blocks whose copy was submitted since the latest step.
    copied_from: Vec<BlockHandle>,
}

// === impl Core ===

impl<M: StepModel> Core<M> {
    pub(super) fn new(
        model: M,
        exchange: Arc<Exchange>,
        limits: BatchLimits,
        targets: Targets,
    ) -> Self {
        let roster = Roster::new(Arc::clone(&exchange), targets);
        Self {
            model,
            exchange,
            limits,
            roster,
            meter: Meter::new(StepSeed::GPU),
            tiers: None,
            flight: None,
            submitted: 0,
            collected_at: clock::now(),
            ended_at: clock::now(),
            decodes: false,
            entered: false,
            waited: Duration::ZERO,
            copied_from: Vec::new(),
        }
    }

    /// The same, with what is known of its speed from before.
    pub(super) fn measured(self, meter: Meter) -> Self {
        let core = Self { meter, ..self };
        core.publish();
        core
    }

    /// The same, over slower memory.
    pub(super) fn above(self, tiers: Option<Tiers>) -> Self {
        Self { tiers, ..self }
    }

    /// Runs until told to stop, or until no handle is left.
    pub(super) fn run(&mut self, commands: &Receiver<Command>) {
        let mut moved = true;
        while self.take_commands(commands, moved) {
            moved = self.turn(clock::now());
        }
        self.land();
    }

    /// Goes one step further. Says whether anything moved.
    pub(super) fn turn(&mut self, began: Instant) -> bool {
        self.sweep(began);
        self.raise();
        let moved = self.step(began);
        self.tiers.iter().for_each(Tiers::nudge);
        self.publish();
        let waited = std::mem::take(&mut self.waited);
        if moved {
            let took = clock::now().saturating_duration_since(began);
            self.meter.host(took.saturating_sub(waited), self.decodes);
        }
        moved
    }

    /// Takes in the results of the step in flight.
    pub(super) fn land(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.collect(flight);
        }
        self.exchange.outbox.flush();
    }

    /// Ends everything that is outstanding, or on its way here.
    pub(super) fn fail_all(&mut self, failure: &SequenceError, commands: &Receiver<Command>) {
        self.enter_all(commands.try_iter());
        let requests: Vec<u64> = self.roster.requests.keys().collect();
        for request in requests {
            self.fail(request, failure.clone());
        }
        self.publish();
    }

    /// When the step behind the one in flight has to be planned, as far as it is known who will be in it.
    fn plan_at(&self) -> Option<Instant> {
        let flight = self.flight.as_ref()?;
        let expected = self.meter.times.forecast(&flight.shape);
        let lead = self.meter.ahead.lead(self.roster.has_prompts(), expected);
        Some(self.beginning_of(flight) + expected.saturating_sub(lead))
    }

    pub(super) fn must_stop(&self) -> bool {
        let stop_at = self.exchange.stop_at();
        stop_at.is_some_and(|deadline| self.is_idle() || deadline <= clock::now())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.roster.is_empty() && self.flight.is_none()
    }

    pub(super) fn enter_all(&mut self, commands: impl Iterator<Item = Command>) {
        for command in commands {
            if let Command::Submit(accepted) = command {
                self.entered = true;
                self.meter.stats.finished += self.roster.enter(*accepted);
            }
        }
    }

    /// Ends what nobody waits for any more, and sees who has stalled.
    fn sweep(&mut self, now: Instant) {
        let (mut cancelled, mut late) = (Vec::new(), Vec::new());
        let has_left = self.exchange.outbox.take_departures() | std::mem::take(&mut self.entered);
        for (number, request) in self.roster.requests.iter_mut() {
            request.paused = !request.events.has_room();
            if has_left && request.events.is_closed() {
                cancelled.push(number);
            } else if request.is_late(now) {
                late.push(number);
            }
        }
        for request in cancelled {
            // Stop strings end an answer this way.
            let outputs = self.roster.outputs(request);
            outputs.into_iter().filter(|&tokens| tokens > 0).for_each(|it| self.meter.ended(it));
            self.meter.stats.cancelled += u64::from(self.roster.remove(request).is_some());
        }
        for request in late {
            self.fail(request, SequenceError::Deadline);
        }
    }

    /// Has brought up what the tiers below have of waiting prompts.
    fn raise(&mut self) {
        if let Some(tiers) = &self.tiers {
            let rate = self.meter.stats.prefill_tokens_per_s;
            self.roster.raise(tiers, &self.limits, rate);
        }
    }

    /// Submits a step, and sees to the one before. Says whether anything moved.
    ///
    /// - `began`: when the host began with it.
    fn step(&mut self, began: Instant) -> bool {
        let flight = self.flight.take();
        let follows = flight.is_some();
        let begins = self.end_of(flight.as_ref());
        let (next, preempted) = self.submit_next(follows, begins);
        // Where steps don't overlap, submitting waits for others' turns, or computes.
        if let Some(next) = next.as_ref().filter(|_| self.model.overlaps()) {
            let cost = clock::now() - began;
            let in_time = flight.as_ref().is_some_and(|flight| !flight.is_done(&self.model));
            self.meter.ahead.observe(next.has_prompts(), cost, in_time);
        }
        if let Some(flight) = flight {
            self.collect(flight);
        }
        let moved = follows || preempted || next.is_some();
        match next {
            Some(next) if self.model.overlaps() => self.flight = Some(next),
            Some(next) => self.collect(next),
            None => {}
        }
        moved
    }

    /// Plans and submits a step; says, too, whether anybody was preempted.
    ///
    /// - `begins`: when it will probably begin.
    /// - `follows`: another step is in flight. Then nobody is preempted or parked: who needs that waits until
    ///   the results are there, which may free what is needed.
    fn submit_next(&mut self, follows: bool, begins: Instant) -> (Option<Flight<M::Ticket>>, bool) {
        let (plan, probed) = self.plan(begins);
        let sets_back = !plan.preempted.is_empty() || !plan.parked.is_empty();
        if follows && sets_back {
            self.roster.unpin(probed.iter());
            return (None, false);
        }
        for &key in &plan.preempted {
            self.roster.preempt(key);
            self.meter.stats.preemptions += 1;
        }
        plan.parked.iter().for_each(|&key| self.roster.park(key));
        self.meter.stats.parkings += plan.parked.len() as u64;
        // What was pinned in vain first: the planned rows count on those blocks.
        let planned = |key: &SequenceKey| plan.rows.iter().any(|row| row.key == *key);
        self.roster.unpin(probed.iter().filter(|key| !planned(key)));
        let rows = self.bind_rows(&plan);
        self.roster.unpin(probed.iter());
        let next = if rows.is_empty() { None } else { self.submit(&rows) };
        (next, sets_back)
    }

    /// When the steps in flight will have ended, if none ends late.
    fn end_of(&self, flight: Option<&Flight<M::Ticket>>) -> Instant {
        let expected = flight
            .map(|flight| self.beginning_of(flight) + self.meter.times.forecast(&flight.shape));
        expected.into_iter().fold(clock::now(), Instant::max)
    }

    /// When a step that follows the latest one that was collected began.
    fn beginning_of(&self, flight: &Flight<M::Ticket>) -> Instant {
        flight.submitted.max(self.ended_at)
    }

    fn plan(&mut self, begins: Instant) -> (Plan, Vec<SequenceKey>) {
        let views = self.roster.views(begins);
        let available_blocks = self.exchange.pool.counts().available();
        let wanted_blocks = self.exchange.wanted_blocks.load(Ordering::Relaxed);
        let limits = BatchLimits { wanted_blocks, ..self.limits };
        let step_max = self.model.expects_others().then_some(SHARED_STEP);
        let pace = Pace { times: &self.meter.times, step_max };
        let mut probed = Vec::new();
        let plan = batching::plan(&limits, &pace, &views, available_blocks, &mut |key| {
            probed.push(key);
            self.roster.pin_prefix(key)
        });
        (plan, probed)
    }

    /// Binds blocks for the planned rows, and returns those that got them.
    fn bind_rows(&mut self, plan: &Plan) -> Vec<PlannedRow> {
        let mut bound = Vec::with_capacity(plan.rows.len());
        let mut failed = false;
        for row in &plan.rows {
            match self.bind(row) {
                Ok(true) => bound.push(*row),
                Ok(false) => {}
                Err(error) => {
                    self.fail_on_device(row.key.request, &error);
                    failed = true;
                }
            }
        }
        if failed {
            // A request that failed on a later choice's copy takes its earlier rows with it.
            bound.retain(|row| self.roster.sequences.contains(row.key));
        }
        bound
    }

    /// Gives a sequence what it needs for its row.
    ///
    /// `false` if the pool has given its blocks to somebody else meanwhile.
    fn bind(&mut self, row: &PlannedRow) -> Result<bool, EngineError> {
        let Some(sequence) = self.roster.sequences.get_mut(row.key) else { return Ok(false) };
        let starts = sequence.standing == Standing::Waiting;
        debug_assert!(
            row.blocks > 0
                || !sequence.table.needs_copy()
                    && sequence.table.blocks_missing(row.tokens as usize) == 0,
            "{row:?} was planned without what it needs",
        );
        if row.blocks == 0 {
            sequence.note_own_block();
        } else if !self.bind_blocks(row)? {
            return Ok(false);
        }
        if starts {
            self.start(row.key);
        }
        Ok(true)
    }

    /// Gives a sequence the blocks for its row, its own copy of the block it writes included.
    fn bind_blocks(&mut self, row: &PlannedRow) -> Result<bool, EngineError> {
        let Some(sequence) = self.roster.sequences.get_mut(row.key) else { return Ok(false) };
        let copies = sequence.needs_copy();
        let table = &mut sequence.table;
        let missing = table.blocks_missing(row.tokens as usize);
        let blocks = missing as u32 + u32::from(copies);
        let Ok(mut credit) = self.exchange.pool.reserve(blocks) else { return Ok(false) };
        let bound = credit.bind_many(blocks).expect("as many blocks were reserved");
        let mut bound = bound.into_iter();
        if copies && let Some(own) = bound.next() {
            let to = own.id();
            let old = table.replace_block(table.next_block(), own);
            let from = old.id();
            self.copied_from.push(old);
            self.model.copy_block(from, to)?;
        }
        bound.for_each(|block| table.push(block));
        sequence.note_own_block();
        self.exchange.live.set(row.key, &sequence.table);
        Ok(true)
    }

    /// Gives a sequence its running place; what the prefix cache had for it is announced.
    fn start(&mut self, key: SequenceKey) {
        let Some((request, sequence)) = self.roster.pair_mut(key) else { return };
        sequence.standing = Standing::Running;
        self.exchange.live.set(key, &sequence.table);
        let cached_tokens = sequence.table.tokens();
        if !request.has_started() && !request.resumed {
            self.meter.stats.cached_tokens += cached_tokens as u64;
        }
        request.start(cached_tokens);
        let cached_blocks = cached_tokens / self.limits.block_tokens as usize;
        // Written in earlier steps, which have ended: behind any fence.
        let layers = 0..self.exchange.info.layout.layers();
        let pages = Pages { layers, fence: Fence::default(), last_chunk: false };
        request.announce(&sequence.table.blocks()[..cached_blocks], pages);
        request.note_announced(cached_blocks);
    }

    fn submit(&mut self, rows: &[PlannedRow]) -> Option<Flight<M::Ticket>> {
        self.submitted += 1;
        let copied_from = std::mem::take(&mut self.copied_from);
        self.decodes = rows.iter().all(|row| row.tokens == 1);
        let step = Step::new(&self.roster, rows);
        let began = clock::now();
        let submitted = step.submit(&mut self.model, self.submitted);
        if !self.model.overlaps() {
            // The device is the host, and this was its work.
            self.waited += clock::now().saturating_duration_since(began);
        }
        match submitted {
            Ok(mut flight) => {
                flight.copied_from = copied_from;
                flight.parts.iter().for_each(|part| self.note_submitted(part));
                Some(flight)
            }
            Err(error) => {
                self.fail_step(rows.iter(), &error);
                None
            }
        }
    }

    /// Moves a sequence on to where the step that was just submitted will leave it.
    fn note_submitted(&mut self, part: &Part) {
        let number = self.submitted;
        let Some((request, sequence)) = self.roster.pair_mut(part.row.key) else { return };
        sequence.note_submitted(number, part.written_tokens);
        request.note_announced(sequence.final_blocks(part.written_tokens, part.completes));
        if !part.samples.is_empty() {
            let parts = sequence.width() > 1;
            let feeds = !parts && request.feeds_itself(sequence.generated_tokens());
            sequence.expect_token(feeds.then_some(part.samples.start));
        }
    }

    /// Waits for a step's results and takes them to the sequences and their readers.
    fn collect(&mut self, flight: Flight<M::Ticket>) {
        let (number, began, shape) = (flight.number, self.beginning_of(&flight), flight.shape);
        let in_time = !flight.is_done(&self.model);
        let waiting_since = clock::now();
        let (parts, result) = flight.collect(&mut self.model);
        self.waited += clock::now().saturating_duration_since(waiting_since);
        self.collected_at = clock::now();
        self.roster.note_collected(number);
        // Others' turns before it are part of what a step takes, and the device doesn't count them.
        let counts = |_: &Duration| self.model.overlaps();
        let took = result.as_ref().ok().and_then(|outcome| outcome.took).filter(counts);
        self.ended_at = match took {
            Some(took) if !in_time => self.collected_at.min(began + took),
            _ => self.collected_at,
        };
        match result {
            Ok(outcome) => {
                self.meter.step(&shape, took.unwrap_or(self.collected_at - began));
                self.deliver(&parts, outcome);
            }
            Err(error) => self.fail_step(parts.iter().map(|part| &part.row), &error),
        }
    }

    fn fail_step<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = &'a PlannedRow>,
        error: &EngineError,
    ) {
        self.meter.stats.failed_steps += 1;
        tracing::error!(%error, sequences = rows.len(), "step failed");
        for row in rows {
            self.fail_on_device(row.key.request, error);
        }
    }

    fn deliver(&mut self, parts: &[Part], outcome: Outcome) {
        self.deliver_scores(outcome.scores);
        for (request, reason) in outcome.faults {
            self.fail_on_logits(request, reason);
        }
        // They come in the order of the parts; those of a sequence that has left are left out.
        let mut samples = outcome.samples.into_iter();
        for part in parts {
            let mut of_part = samples.by_ref().take(part.samples.len());
            self.conclude(part, of_part.by_ref().flatten());
            of_part.for_each(drop);
        }
    }

    fn deliver_scores(&mut self, scores: Vec<(u64, PromptLogprob)>) {
        let mut by_request: BTreeMap<u64, Vec<PromptLogprob>> = BTreeMap::new();
        for (request, score) in scores {
            by_request.entry(request).or_default().push(score);
        }
        for (number, scores) in by_request {
            if let Some(request) = self.roster.requests.get_mut(number) {
                request.scored += scores.len();
                request.events.send(Event::PromptLogprobs(scores));
            }
        }
    }

    /// What follows for a sequence whose part of a step is done: full blocks can be found by others,
    /// and where its context is computed, its readers hear of tokens.
    fn conclude(&mut self, part: &Part, mut sampled: impl Iterator<Item = Sampled>) {
        let key = part.row.key;
        let Some((request, sequence)) = self.roster.pair_mut(key) else { return };
        if self.exchange.info.prefix_cache {
            let prompt = &request.prompt;
            sequence.seal(&self.exchange.pool, &request.hasher, prompt, part.written_tokens);
        }
        if !part.completes {
            return;
        }
        self.meter.stats.decode_tokens += part.samples.len() as u64;
        let index = sequence.output.len() as u32;
        let heard =
            |(choice, Sampled { token, logprob })| SampledToken { choice, index, token, logprob };
        if request.prefill_only {
            let tokens = sequence.choices().zip(sampled).map(heard).collect();
            self.meter.stats.finished += 1;
            self.roster.hand_over(key, tokens);
        } else if sequence.width() > 1 {
            let tokens = sequence.choices().zip(sampled).map(heard).collect();
            self.part_choices(key, tokens);
        } else if let Some(sampled) = sampled.next() {
            sequence.append(sampled.token, self.collected_at);
            let token = heard((key.choice, sampled));
            if let Some(reason) = request.hear(token, sequence.output.len()) {
                self.finish(key, key.choice, reason);
            }
        } else {
            self.finish(key, key.choice, FinishReason::Length);
        }
    }

    /// Parts a sequence of many choices into one for each, after the first token of each; where no
    /// token was wanted all of them end.
    fn part_choices(&mut self, key: SequenceKey, tokens: Vec<SampledToken>) {
        if tokens.is_empty() {
            let choices = |sequence: &Sequence| sequence.choices().collect::<Vec<_>>();
            for choice in self.roster.sequences.get(key).map(choices).unwrap_or_default() {
                self.finish(key, choice, FinishReason::Length);
            }
        }
        let first: Vec<_> = tokens.iter().map(|token| (token.choice, token.token)).collect();
        self.roster.part_choices(key, &first, self.collected_at);
        for token in tokens {
            let choice = token.choice;
            let key = SequenceKey { request: key.request, choice };
            let Some((request, sequence)) = self.roster.pair(key) else { continue };
            if let Some(reason) = request.hear(token, sequence.output.len()) {
                self.finish(key, choice, reason);
            }
        }
    }

    fn finish(&mut self, key: SequenceKey, choice: u32, reason: FinishReason) {
        if let Some(sequence) = self.roster.sequences.get(key) {
            self.meter.ended(sequence.output.len() as u32);
        }
        self.meter.stats.finished += u64::from(self.roster.finish(key, choice, Some(reason)));
    }

    fn fail(&mut self, request: u64, failure: SequenceError) {
        if self.roster.requests.contains(request) {
            self.meter.stats.failed += 1;
            self.roster.fail(request, failure);
        }
    }

    /// What a sequence without numbers has written can't be told from what is right: none of its blocks may
    /// be found by another.
    fn fail_on_logits(&mut self, request: u64, fault: LogitsFault) {
        let failure = match fault {
            LogitsFault::NotFinite => {
                let unpublished = self.roster.unpublish(request);
                self.tiers.iter().for_each(Tiers::strike);
                self.meter.stats.miscomputed += 1;
                tracing::error!(
                    unpublished,
                    "the model computed NaN or infinity: damaged weights or memory, or an overflow"
                );
                SequenceError::NotFinite
            }
            LogitsFault::NoCandidate => SequenceError::NoCandidate,
        };
        self.fail(request, failure);
    }

    fn fail_on_device(&mut self, request: u64, error: &EngineError) {
        self.fail(request, SequenceError::Device(error.to_string()));
    }

    fn publish(&self) {
        let mut stats = self.meter.stats.clone();
        self.roster.count(&mut stats);
        *self.exchange.stats.lock() = stats;
        self.exchange.outbox.flush();
    }
}
