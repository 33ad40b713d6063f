//! What is left of a step: its tokens, and its time.

use super::{Pace, PlannedRow, SequenceView};
use crate::cost::StepShape;

/// A step may take this many times as long as its decode rows alone, whatever their targets: prompts that had no time of
/// their own would never be computed where even those rows take longer than is wanted.
const LEAST_SHARE: f64 = 2.0;

/// A step while it is put together.
#[derive(Debug)]
pub(super) struct Room<'a> {
    pace: &'a Pace<'a>,
    shape: StepShape,
    /// What was in it before prompts came.
    rows: StepShape,
    tokens_left: u32,
    /// What the step may take at most.
    limit_s: f64,
}

// === impl Room ===

impl<'a> Room<'a> {
    /// An empty step of at most so many tokens.
    pub(super) fn new(pace: &'a Pace<'a>, tokens_max: u32) -> Self {
        let (shape, rows) = Default::default();
        Self { pace, shape, rows, tokens_left: tokens_max, limit_s: f64::INFINITY }
    }

    pub(super) fn tokens_left(&self) -> u32 {
        self.tokens_left
    }

    /// Whether a prompt has a part in it.
    pub(super) fn has_chunk(&self) -> bool {
        self.shape.prompts > 0
    }

    pub(super) fn take(&mut self, sequence: &SequenceView, row: PlannedRow) {
        self.tokens_left -= row.tokens;
        self.shape = self.shape + sequence.part(row.tokens);
    }

    pub(super) fn take_back(&mut self, sequence: &SequenceView, row: PlannedRow) {
        self.tokens_left += row.tokens;
        self.shape = self.shape - sequence.part(row.tokens);
    }

    /// From now on the step is no longer than the rows in it have time.
    ///
    /// - `due_s`: the shortest time of those rows.
    pub(super) fn close(&mut self, due_s: Option<f64>) {
        self.rows = self.shape;
        let others_s = self.pace.step_max.map(|time| time.as_secs_f64());
        let Some(wanted_s) = due_s.into_iter().chain(others_s).reduce(f64::min) else { return };
        let least_s = LEAST_SHARE * self.rows_s();
        self.limit_s = wanted_s.max(least_s);
    }

    /// As many of a prompt's tokens as there is room for.
    ///
    /// - `wanted`: no more than these.
    pub(super) fn fitting(&self, sequence: &SequenceView, wanted: u32) -> u32 {
        let wanted = wanted.min(self.tokens_left);
        let fits = |tokens| self.with_s(sequence, tokens) <= self.limit_s;
        if self.limit_s.is_infinite() || wanted == 0 {
            return wanted;
        }
        let familiar = self.pace.times.familiar_tokens();
        let wanted = wanted.min(familiar.saturating_sub(self.shape.prompt_tokens));
        if wanted == 0 || fits(wanted) {
            return wanted;
        }
        let (mut most, mut too_many) = (0, wanted);
        while too_many - most > 1 {
            let tokens = u32::midpoint(most, too_many);
            *(if fits(tokens) { &mut most } else { &mut too_many }) = tokens;
        }
        most
    }

    /// Prompts' rows that begin a tile which costs more than they are worth.
    pub(super) fn overhang(&self) -> u32 {
        self.pace.times.overhang(&self.shape)
    }

    /// Whether the last `tokens` of a prompt's chunk cost less beside the rows that decode in the next step.
    pub(super) fn is_cheaper_later(
        &self,
        sequence: &SequenceView,
        row: PlannedRow,
        tokens: u32,
    ) -> bool {
        let end = sequence.filled_tokens + row.tokens;
        let part = StepShape::chunk(end - tokens, tokens);
        self.pace.times.is_cheaper_later(&self.shape, part, self.rows)
    }

    /// What the step takes, seconds.
    pub(super) fn taken_s(&self) -> f64 {
        self.pace.times.forecast_s(&self.shape)
    }

    /// Seconds for one of a prompt's tokens, where `tokens` of them are beside what is in the step.
    pub(super) fn s_per_token(&self, sequence: &SequenceView, tokens: u32) -> f64 {
        self.with_s(sequence, tokens.max(1)) / f64::from(tokens.max(1))
    }

    fn with_s(&self, sequence: &SequenceView, tokens: u32) -> f64 {
        let shape = self.shape + StepShape::chunk(sequence.filled_tokens, tokens);
        self.pace.times.forecast_at_most_s(&shape)
    }

    /// What is in the step takes so long; nothing where nothing is.
    fn rows_s(&self) -> f64 {
        if self.shape.rows() == 0 { 0.0 } else { self.pace.times.forecast_s(&self.shape) }
    }
}
