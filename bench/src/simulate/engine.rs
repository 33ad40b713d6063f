//! An engine in virtual time: the planner and the pool of a real one, and steps that take what a table says.

mod meter;
mod sequence;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kv_cache::{BlockHash, BlockPool};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use scheduler::batching::{
    self, BatchLimits, Pace, Plan, PlannedRow, PrefixHit, SequenceKey, SequenceView, Standing,
};
use scheduler::cost::{StepSeed, StepShape, StepTimes};
use words::{HandoffTotals, Load, Targets};

use self::meter::Meter;
use self::sequence::Sequence;
use super::names::Namer;

/// By how much steps differ that are alike, at most: on an H200 nearly all are within some parts in a hundred.
const NOISE: f64 = 0.02;

/// What an engine is built on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Build {
    pub(super) blocks: u32,
    pub(super) limits: BatchLimits,
    pub(super) targets: Targets,
    /// What its steps take.
    pub(super) steps: StepSeed,
    pub(super) namer: Namer,
}

/// Work for an engine.
#[derive(Clone, Debug)]
pub(super) struct Job {
    /// The request's number.
    pub(super) number: usize,
    /// Of the prompt's full blocks.
    pub(super) names: Arc<[BlockHash]>,
    pub(super) prompt_tokens: u32,
    /// To generate, here or elsewhere.
    pub(super) output_tokens: u32,
    /// When the client asked.
    pub(super) asked: Duration,
    pub(super) task: Task,
}

/// What is to be done with a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// It is computed, and its answer generated.
    Both,
    /// It is computed for somebody else, with the first token.
    Prefill,
    /// It has been computed, and the first token with it, at this time.
    Decode {
        /// When.
        first: Duration,
    },
}

/// A token that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    /// The request's number.
    pub(super) number: usize,
    /// It is the request's first.
    pub(super) is_first: bool,
    /// Nothing of the request is left to do here.
    pub(super) is_last: bool,
    /// Prompt tokens that were found in the cache.
    pub(super) cached_tokens: u32,
}

/// An engine that takes jobs at any time, and steps one after the other.
pub(super) struct Engine {
    build: Build,
    pub(super) pool: BlockPool,
    truth: StepTimes,
    times: StepTimes,
    live: BTreeMap<SequenceKey, Sequence>,
    /// Computed elsewhere, and no room for their blocks yet.
    incoming: VecDeque<Job>,
    /// Prompts that somebody else computes.
    awaited: u32,
    step: Option<Step>,
    meter: Meter,
    handoffs: HandoffTotals,
    dice: ChaCha8Rng,
    taken: u64,
    preemptions: u64,
    busy: Duration,
}

/// A step in flight.
struct Step {
    shape: StepShape,
    rows: Vec<PlannedRow>,
    took: Duration,
}

// === impl Engine ===

impl Engine {
    pub(super) fn new(build: Build, dice: ChaCha8Rng) -> Self {
        Self {
            build,
            // A block's one token stands for all that are in it.
            pool: BlockPool::new(build.blocks, 1),
            truth: StepTimes::new(build.steps),
            times: StepTimes::new(build.steps),
            live: BTreeMap::new(),
            incoming: VecDeque::new(),
            awaited: 0,
            step: None,
            meter: Meter::default(),
            handoffs: HandoffTotals::default(),
            dice,
            taken: 0,
            preemptions: 0,
            busy: Duration::ZERO,
        }
    }

    /// Takes a job; one whose prompt was computed elsewhere as soon as there is room.
    pub(super) fn take(&mut self, job: Job) {
        if matches!(job.task, Task::Decode { .. }) {
            self.awaited -= 1;
            self.incoming.push_back(job);
            self.receive();
        } else {
            self.enter(Sequence::new(job, self.build.limits.block_tokens));
        }
    }

    /// A prompt will come that somebody else computes.
    pub(super) fn expect(&mut self) {
        self.awaited += 1;
    }

    /// One of those was all there was to the answer.
    pub(super) fn expect_no_more(&mut self) {
        self.awaited -= 1;
    }

    /// A prompt of `tokens` tokens was handed over from here.
    pub(super) fn handed_over(&mut self, tokens: u32, added: Duration) {
        self.handoffs.add(tokens, added);
    }

    /// Plans the next step, unless one is in flight; says how long it takes.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Duration> {
        if self.step.is_some() || self.live.is_empty() {
            return None;
        }
        let (plan, probed) = self.plan(now);
        for key in plan.preempted.iter().chain(&plan.parked) {
            let is_preempted = plan.preempted.contains(key);
            self.sequence(*key).give_way(is_preempted);
            self.preemptions += u64::from(is_preempted);
        }
        let is_planned = |key: &SequenceKey| plan.rows.iter().any(|row| row.key == *key);
        // What was pinned in vain first: the planned rows count on those blocks.
        probed.iter().filter(|key| !is_planned(key)).for_each(|key| self.unpin(*key));
        let rows: Vec<PlannedRow> = plan.rows.into_iter().filter(|row| self.bind(row)).collect();
        probed.iter().for_each(|key| self.unpin(*key));
        if rows.is_empty() {
            return None;
        }
        let shape = rows.iter().map(|row| self.live[&row.key].part(row.tokens)).sum();
        let noise = self.dice.random_range(1.0 - NOISE..=1.0 + NOISE);
        let took = Duration::from_secs_f64(self.truth.forecast_s(&shape) * noise);
        self.step = Some(Step { shape, rows, took });
        Some(took)
    }

    /// Ends the step in flight; returns the tokens that came of it.
    pub(super) fn end(&mut self, now: Duration) -> Vec<Token> {
        let Some(Step { shape, rows, took }) = self.step.take() else { return Vec::new() };
        self.busy += took;
        self.times.observe(&shape, took);
        self.meter.step(&shape, took);
        let mut tokens = Vec::new();
        for row in &rows {
            let sequence = self.live.get_mut(&row.key).expect("a row is of a sequence");
            let Some(token) = sequence.advance(row.tokens, now, self.build.namer) else { continue };
            tokens.push(token);
            if token.is_last {
                let ended = self.live.remove(&row.key).expect("it was there");
                ended.output_tokens().into_iter().for_each(|it| self.meter.output.observe(it));
            }
        }
        self.receive();
        tokens
    }

    /// What it tells routers.
    pub(super) fn load(&self, sequence: u64) -> Load {
        let running = self.count(|it| it.standing() == Standing::Running);
        let waiting = self.live.len() as u32 - running + self.incoming.len() as u32;
        let counts = self.pool.counts();
        Load {
            sequence,
            running,
            waiting,
            queued_prefill_tokens: self.live.values().map(Sequence::prompt_tokens_left).sum(),
            context_tokens: self.live.values().map(Sequence::context_read).sum(),
            free_blocks: counts.available(),
            total_blocks: counts.total(),
            prefill_tokens_per_s: self.meter.prompt_tokens_per_s(),
            decode_step_s: self.meter.decode_step_s,
            output_tokens: self.meter.output.mean(),
            handoffs: self.handoffs,
            generating: self.count(Sequence::generates) + self.incoming.len() as u32 + self.awaited,
            prefill_tokens: self.meter.prompt_tokens,
            ..Load::default()
        }
    }

    pub(super) fn preemptions(&self) -> u64 {
        self.preemptions
    }

    /// For how long it has computed.
    pub(super) fn busy(&self) -> Duration {
        self.busy
    }

    fn count(&self, is_so: impl Fn(&Sequence) -> bool) -> u32 {
        self.live.values().filter(|it| is_so(it)).count() as u32
    }

    fn sequence(&mut self, key: SequenceKey) -> &mut Sequence {
        self.live.get_mut(&key).expect("what is planned is there")
    }

    fn enter(&mut self, sequence: Sequence) {
        self.taken += 1;
        self.live.insert(SequenceKey { request: self.taken, choice: 0 }, sequence);
    }

    /// Takes in what was computed elsewhere, in order, as far as there is room for its blocks.
    fn receive(&mut self) {
        let Self { pool, build, .. } = self;
        let (limits, namer) = (build.limits, build.namer);
        while let Some(job) = self.incoming.front() {
            let Some(sequence) = Sequence::received(job, pool, limits.block_tokens, namer) else {
                return;
            };
            self.incoming.pop_front();
            self.taken += 1;
            self.live.insert(SequenceKey { request: self.taken, choice: 0 }, sequence);
        }
    }

    fn plan(&mut self, now: Duration) -> (Plan, Vec<SequenceKey>) {
        let Self { build, pool, times, live, .. } = self;
        let views: Vec<SequenceView> =
            live.iter().map(|(key, it)| it.view(*key, now, &build.targets)).collect();
        let pace = Pace { times, step_max: None };
        let available_blocks = pool.counts().available();
        let mut probed = Vec::new();
        let plan = batching::plan(&build.limits, &pace, &views, available_blocks, &mut |key| {
            probed.push(key);
            let Some(sequence) = live.get_mut(&key) else { return PrefixHit::default() };
            let before = pool.counts().available();
            let tokens = sequence.pin_prefix(pool);
            PrefixHit { tokens, blocks_taken: before.saturating_sub(pool.counts().available()) }
        });
        (plan, probed)
    }

    /// Gives back what was pinned for a sequence that wasn't admitted after all.
    fn unpin(&mut self, key: SequenceKey) {
        let sequence = self.sequence(key);
        if sequence.standing() == Standing::Waiting {
            sequence.give_way(true);
        }
    }

    /// Gives a sequence what it needs for its row; not if the blocks have gone to somebody else meanwhile.
    fn bind(&mut self, row: &PlannedRow) -> bool {
        let Self { live, pool, .. } = self;
        let sequence = live.get_mut(&row.key).expect("what is planned is there");
        sequence.bind(row.tokens, pool)
    }
}
