//! One simulated engine: steps of rows and of prompt tokens, and what it reports of them.

use std::collections::VecDeque;

use words::Load;

use super::{Answer, HANDOFF};

/// Prompt tokens a second.
const PREFILL_TOKENS_PER_S: f64 = 46_000.0;
/// A decode step without rows, and what a row adds, seconds.
const STEP_S: (f64, f64) = (4.0e-3, 45e-6);
/// Prompt tokens of a step where nothing is generated.
const STEP_TOKENS_MAX: u32 = 2_048;
/// Of a step these at least are prompts, lest they wait for ever.
const STEP_TOKENS_MIN: u32 = 128;

/// How steps are cut where sequences are generated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub(super) seconds_max: f64,
    pub(super) tokens_max: u32,
}

/// A sequence that is generated.
struct Row {
    answer: usize,
    left: u32,
}

/// A prompt that is computed.
pub(super) struct Prompt {
    pub(super) answer: usize,
    pub(super) left: u32,
    /// Where it is handed over to.
    pub(super) to: Option<usize>,
}

/// One engine.
pub(super) struct Worker {
    steps: Steps,
    rows: Vec<Row>,
    prompts: VecDeque<Prompt>,
    step: Option<Step>,
    /// Hand-offs that will come.
    awaited: u32,
    /// What doesn't follow from the above.
    load: Load,
    /// Prompt tokens and seconds of the latest steps that had any.
    chunks: (f64, f64),
}

/// A step in flight.
#[derive(Clone, Copy)]
struct Step {
    began: f64,
    ends: f64,
    tokens: u32,
}

// === impl Worker ===

impl Worker {
    pub(super) fn new(steps: Steps) -> Self {
        Self {
            steps,
            rows: Vec::new(),
            prompts: VecDeque::new(),
            step: None,
            awaited: 0,
            load: Load { decode_step_s: STEP_S.0, ..Load::default() },
            chunks: (PREFILL_TOKENS_PER_S, 1.0),
        }
    }

    /// When its step ends.
    pub(super) fn ends(&self) -> Option<f64> {
        self.step.map(|step| step.ends)
    }

    pub(super) fn compute(&mut self, prompt: Prompt) {
        self.prompts.push_back(prompt);
    }

    pub(super) fn expect(&mut self) {
        self.awaited += 1;
    }

    pub(super) fn receive(&mut self, answer: usize, left: u32) {
        self.awaited -= 1;
        self.generate(answer, left);
    }

    pub(super) fn generate(&mut self, answer: usize, left: u32) {
        self.rows.push(Row { answer, left });
    }

    pub(super) fn handed_over(&mut self, tokens: u32) {
        self.load.handoffs.add(tokens, HANDOFF);
    }

    pub(super) fn begin_step(&mut self, now: f64) {
        if self.step.is_some() || self.rows.is_empty() && self.prompts.is_empty() {
            return;
        }
        let rows_s = match self.rows.len() {
            0 => 0.0,
            rows => STEP_S.0 + STEP_S.1 * rows as f64,
        };
        let tokens = self.prompts.iter().map(|prompt| prompt.left).sum::<u32>();
        let tokens = tokens.min(self.room(rows_s));
        let ends = now + rows_s + f64::from(tokens) / PREFILL_TOKENS_PER_S;
        self.step = Some(Step { began: now, ends, tokens });
    }

    /// Prompt tokens that fit into a step beside its rows.
    fn room(&self, rows_s: f64) -> u32 {
        if self.rows.is_empty() {
            return STEP_TOKENS_MAX;
        }
        let left_s = (self.steps.seconds_max - rows_s).max(0.0);
        let tokens = (left_s * PREFILL_TOKENS_PER_S).min(f64::from(self.steps.tokens_max));
        (tokens as u32).max(STEP_TOKENS_MIN)
    }

    /// Ends the step that is due: the prompts that are computed now.
    pub(super) fn end_step(&mut self, now: f64, answers: &mut [Answer]) -> Vec<Prompt> {
        let Some(step) = self.step.take_if(|step| step.ends <= now) else { return Vec::new() };
        self.measure(now - step.began, step.tokens);
        for row in &mut self.rows {
            row.left -= 1;
            answers[row.answer].tokens += 1;
            answers[row.answer].last = now;
        }
        for row in self.rows.extract_if(.., |row| row.left == 0) {
            self.load.output_tokens = f64::from(answers[row.answer].tokens);
        }
        let (mut room, mut computed) = (step.tokens, Vec::new());
        while let Some(prompt) = self.prompts.front_mut() {
            let part = prompt.left.min(room);
            (prompt.left, room) = (prompt.left - part, room - part);
            if prompt.left > 0 {
                break;
            }
            let answer = &mut answers[prompt.answer];
            (answer.tokens, answer.first, answer.last) = (1, now, now);
            computed.extend(self.prompts.pop_front());
        }
        computed
    }

    /// As the engine's meter.
    fn measure(&mut self, took_s: f64, tokens: u32) {
        self.load.prefill_tokens += u64::from(tokens);
        if tokens > 0 {
            let (before, before_s) = self.chunks;
            self.chunks = (before * 0.9 + f64::from(tokens), before_s * 0.9 + took_s);
            self.load.prefill_tokens_per_s = self.chunks.0 / self.chunks.1;
        } else {
            self.load.decode_step_s += 0.1 * (took_s - self.load.decode_step_s);
        }
    }

    pub(super) fn report(&self, sequence: u64) -> Load {
        let own = self.prompts.iter().filter(|prompt| prompt.to.is_none()).count();
        let computing = self.prompts.len().min(2);
        Load {
            sequence,
            running: (self.rows.len() + computing) as u32,
            waiting: (self.prompts.len() - computing) as u32,
            queued_prefill_tokens: self.prompts.iter().map(|it| u64::from(it.left)).sum(),
            free_blocks: 30_000,
            total_blocks: 32_768,
            generating: (self.rows.len() + own) as u32 + self.awaited,
            ..self.load.clone()
        }
    }
}
