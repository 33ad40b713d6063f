//! An engine in virtual time: the planner, and steps that take what the table of an H200 says.

use std::collections::BTreeMap;

use words::Targets;

use super::super::*;
use super::Dice;
use crate::Backlog;
use crate::cost::{OutputLengths, StepSeed, StepShape};

const BLOCK: u32 = 16;
/// Blocks of the pool: there is memory.
pub(super) const BLOCKS: u32 = 80_000;
/// Sequences that run at once.
pub(super) const PLACES: u32 = 256;

/// How steps are cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) tokens_max: u32,
    pub(super) targets: Targets,
}

/// One request, from its arrival on.
pub(super) struct Request {
    view: SequenceView,
    pub(super) arrived_s: f64,
    pub(super) tokens_s: Vec<f64>,
    left: u32,
}

/// An engine that takes requests at any time, and steps one after the other.
pub(super) struct Engine {
    cut: Cut,
    truth: StepTimes,
    times: StepTimes,
    live: BTreeMap<SequenceKey, Request>,
    number: u64,
    free_blocks: u32,
    step: Option<Step>,
    pub(super) meter: Meter,
}

/// What an engine measures of its steps, as `engine::EngineStats`.
#[derive(Default)]
pub(super) struct Meter {
    pub(super) output: OutputLengths,
    pub(super) decode_step_s: f64,
    pub(super) prompt_tokens: u64,
    /// Prompt tokens and seconds of the latest steps that had any.
    chunks: (f64, f64),
}

struct Step {
    shape: StepShape,
    rows: Vec<PlannedRow>,
    took_s: f64,
    ends_s: f64,
}

// === impl Engine ===

impl Engine {
    pub(super) fn new(cut: Cut) -> Self {
        Self {
            cut,
            truth: StepTimes::new(StepSeed::GPU),
            times: StepTimes::new(StepSeed::GPU),
            live: BTreeMap::new(),
            number: 0,
            free_blocks: BLOCKS,
            step: None,
            meter: Meter::default(),
        }
    }

    /// Takes a request; its number is one more than that of the one before.
    pub(super) fn take(&mut self, arrived_s: f64, prompt_tokens: u32, output_tokens: u32) -> u64 {
        self.number += 1;
        let key = SequenceKey { request: self.number, choice: 0 };
        let view = SequenceView {
            key,
            standing: Standing::Waiting,
            client: ClientId::default(),
            paused: false,
            stalled: false,
            context_tokens: prompt_tokens,
            filled_tokens: 0,
            held_blocks: 0,
            copies_tail: false,
            width: 1,
            due: Due::First(None),
        };
        let request = Request { view, arrived_s, tokens_s: Vec::new(), left: output_tokens };
        self.live.insert(key, request);
        self.number
    }

    pub(super) fn is_idle(&self) -> bool {
        self.live.is_empty()
    }

    /// When the step in flight ends.
    pub(super) fn ends_s(&self) -> Option<f64> {
        self.step.as_ref().map(|step| step.ends_s)
    }

    /// Plans the next step, which takes what the table says, more or less a few parts in a hundred.
    pub(super) fn begin(&mut self, now: f64, dice: &mut Dice) {
        let limits = BatchLimits {
            tokens_max: self.cut.tokens_max,
            sequences_max: PLACES,
            block_tokens: BLOCK,
            watermark_blocks: 100,
            wanted_blocks: 0,
        };
        let views: Vec<SequenceView> =
            self.live.values().map(|it| it.seen(now, &self.cut.targets)).collect();
        let pace = Pace { times: &self.times, step_max: None };
        let plan = plan(&limits, &pace, &views, self.free_blocks, &mut |_| PrefixHit::default());
        assert!(plan.preempted.is_empty(), "there is memory");
        let shape: StepShape =
            plan.rows.iter().map(|row| self.live[&row.key].view.part(row.tokens)).sum();
        let took_s = self.truth.forecast_s(&shape) * (0.98 + 0.04 * dice.share());
        self.step = Some(Step { shape, rows: plan.rows, took_s, ends_s: now + took_s });
    }

    /// Ends the step in flight; returns those that had their last token.
    pub(super) fn end(&mut self) -> Vec<(u64, Request)> {
        let Some(step) = self.step.take() else { return Vec::new() };
        self.times.observe(&step.shape, Duration::from_secs_f64(step.took_s));
        self.meter.step(&step);
        let mut done = Vec::new();
        for row in &step.rows {
            self.free_blocks -= row.blocks;
            let Some(request) = self.live.get_mut(&row.key) else { continue };
            if request.advance(row, step.ends_s) {
                let request = self.live.remove(&row.key).expect("it was there");
                self.free_blocks += request.view.held_blocks;
                self.meter.output.observe(request.tokens_s.len() as u32);
                done.push((row.key.request, request));
            }
        }
        done
    }

    /// Those that had their first token just now, and after how long.
    pub(super) fn firsts(&self, now: f64) -> Vec<(u64, f64)> {
        let spoke = |it: &Request| it.tokens_s.first() == Some(&now);
        let live = self.live.iter().filter(|(_, it)| spoke(it));
        live.map(|(key, it)| (key.request, it.ttft_s())).collect()
    }

    /// Sequences that run, and those that wait.
    pub(super) fn counts(&self) -> (u32, u32) {
        let runs = |it: &&Request| it.view.standing == Standing::Running;
        let running = self.live.values().filter(runs).count() as u32;
        (running, self.live.len() as u32 - running)
    }

    /// Blocks that nobody has.
    pub(super) fn free_blocks(&self) -> u32 {
        self.free_blocks
    }

    /// Tokens of prompts that are still to be computed.
    pub(super) fn backlog(&self) -> Backlog {
        let mut backlog = Backlog::default();
        let left = self.live.values().map(|it| it.view.remaining_tokens());
        left.filter(|left| *left > 1)
            .for_each(|left| backlog.add(ClientId::default(), left.into()));
        backlog
    }
}

// === impl Meter ===

impl Meter {
    fn step(&mut self, step: &Step) {
        let tokens = step.shape.prompt_tokens;
        self.prompt_tokens += u64::from(tokens);
        if tokens > 0 {
            let (before, before_s) = self.chunks;
            self.chunks = (before * 0.9 + f64::from(tokens), before_s * 0.9 + step.took_s);
        } else if self.decode_step_s == 0.0 {
            self.decode_step_s = step.took_s;
        } else {
            self.decode_step_s += 0.1 * (step.took_s - self.decode_step_s);
        }
    }

    /// Prompt tokens a second, 0 before any were seen.
    pub(super) fn prompt_tokens_per_s(&self) -> f64 {
        if self.chunks.1 > 0.0 { self.chunks.0 / self.chunks.1 } else { 0.0 }
    }
}

// === impl Request ===

impl Request {
    fn seen(&self, now: f64, targets: &Targets) -> SequenceView {
        let since = |then: f64| Duration::from_secs_f64(now - then);
        let progress = match (self.tokens_s.first(), self.tokens_s.last()) {
            (Some(first), Some(last)) => {
                let gaps = self.tokens_s.len() as u32 - 1;
                Progress::Streaming { since: since(*first), gaps, silent: since(*last) }
            }
            _ => Progress::Waiting { since: since(self.arrived_s) },
        };
        SequenceView { due: Due::of(progress, targets), ..self.view }
    }

    /// Whether that was its last token.
    fn advance(&mut self, row: &PlannedRow, now: f64) -> bool {
        let view = &mut self.view;
        view.standing = Standing::Running;
        view.held_blocks += row.blocks;
        view.filled_tokens += row.tokens;
        if view.filled_tokens == view.context_tokens {
            view.context_tokens += 1;
            self.tokens_s.push(now);
            self.left -= 1;
        }
        self.left == 0
    }

    pub(super) fn ttft_s(&self) -> f64 {
        self.tokens_s[0] - self.arrived_s
    }

    pub(super) fn tpot_s(&self) -> f64 {
        let (first, last) = (self.tokens_s[0], self.tokens_s[self.tokens_s.len() - 1]);
        (last - first) / (self.tokens_s.len() - 1) as f64
    }
}
