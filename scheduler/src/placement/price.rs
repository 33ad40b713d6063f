//! What a request's part on one worker costs everybody, in seconds.
//!
//! Its own waiting, and that of others: sequences that are generated there fall behind while a prompt is computed, and a row
//! more makes their steps longer; prompts that wait there come later. A second is a second, whose ever it is, so the
//! ways to serve a request can be compared, and a worker that has nothing to do costs nobody anything.

use words::Role;

use super::Part;
use super::seat::{Pace, Question, Seat};
use crate::cost::Terms;

/// One worker's speed with the request, and what others have there.
pub(super) struct Price<'a> {
    seat: Seat<'a>,
    question: Question<'a>,
    /// Prompt tokens here.
    backlog_s: f64,
    /// The request's prompt, as far as it is not cached here; and what is fetched from a lower tier.
    prefill_s: f64,
    /// Tokens of it that are computed.
    computed_tokens: u32,
    /// By how much the prompt sets each sequence beside it back.
    lost_s: f64,
    /// What it adds to hand the prompt over.
    handoff_s: f64,
    /// A decode step with the request.
    step_s: f64,
    /// By how much it is longer than without.
    longer_s: f64,
    /// Tokens that a sequence of the request is likely to have.
    output_tokens: f64,
    /// The part of the time that goes to prompts.
    prompts_share: f64,
    pace: Pace,
}

// === impl Price ===

impl<'a> Price<'a> {
    pub(super) fn new(seat: Seat<'a>, question: Question<'a>) -> Self {
        let (request, estimates) = (question.request, seat.estimates(question));
        let tokens = request.context_tokens;
        let (computed_tokens, fetched_s) = seat.uncached(question);
        let rows = seat.rows_with(question);
        let step_s = estimates.decode_step_s(rows);
        let before_s = match rows.saturating_sub(request.sequences) {
            0 => 0.0,
            rows => estimates.decode_step_s(rows),
        };
        let alone_s = estimates.decode_step_s(seat.running_at_most(request.sequences));
        let allowed = request.total_tokens_max.saturating_sub(tokens);
        let release_s = step_s * seat.view.output_tokens() / f64::from(rows.max(1));
        Self {
            seat,
            question,
            backlog_s: seat.backlog_s(question),
            prefill_s: estimates.prefill_s(computed_tokens.into()) + fetched_s,
            computed_tokens,
            lost_s: estimates.lost_s(computed_tokens.into()),
            handoff_s: estimates.handoff_s(tokens),
            step_s,
            longer_s: (step_s - before_s).max(0.0),
            output_tokens: question.output_tokens.min(allowed.into()),
            prompts_share: estimates.prompts_share(),
            pace: Pace { step_s, alone_s: alone_s.min(step_s), release_s },
        }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    /// Tokens of the prompt that are computed, where the prompt is computed here.
    pub(super) fn computed_tokens(&self) -> u32 {
        self.computed_tokens
    }

    pub(super) fn prompts_share(&self) -> f64 {
        self.prompts_share
    }

    /// The terms of one part.
    pub(super) fn terms(&self, part: Part) -> Terms {
        match part {
            Part::Prefill => self.prefill_terms(),
            Part::Decode => self.decode_terms(),
            Part::Both => self.both_terms(),
        }
    }

    /// `queue + prefill + hand-off`, and what the prompt takes from what is here.
    fn prefill_terms(&self) -> Terms {
        Terms {
            queue_s: self.queue_s(),
            prefill_s: self.prefill_s,
            handoff_s: self.handoff_s,
            stall_s: self.prompt_stall_s(self.seat.view.generating()),
            ..Terms::default()
        }
    }

    /// The wait for a slot and blocks, one step, and the tokens after it; prompts that this worker still computes itself
    /// slow the sequence down, by about their own time. Blocks that are here already are not handed over: that much less is
    /// added by the hand-off, whoever sends it.
    fn decode_terms(&self) -> Terms {
        Terms {
            handoff_s: -self.handoff_saved_s(),
            decode_s: self.decode_s(),
            tokens_s: self.output_tokens * self.gap_s(),
            stall_s: self.backlog_s + self.row_stall_s(),
            ..Terms::default()
        }
    }

    /// As without a hand-off, and all that is generated here waits while the prompt is computed. One sequence
    /// at least is counted, the next to come: otherwise an idle worker would take prompts of
    /// any length, and the requests that follow would find it busy.
    fn both_terms(&self) -> Terms {
        let rows = self.seat.view.generating().max(1);
        Terms {
            queue_s: self.queue_s(),
            prefill_s: self.prefill_s,
            handoff_s: 0.0,
            decode_s: self.decode_s(),
            tokens_s: self.output_tokens * self.gap_s(),
            stall_s: self.prompt_stall_s(rows) + self.row_stall_s(),
        }
    }

    fn handoff_saved_s(&self) -> f64 {
        let request = self.question.request;
        let here = self.seat.cached(request).device;
        let estimates = self.seat.estimates(self.question);
        let rest_s = estimates.pooled_handoff_s(request.context_tokens - here);
        (estimates.pooled_handoff_s(request.context_tokens) - rest_s).max(0.0)
    }

    /// The part of the backlog that comes before the request.
    fn queue_s(&self) -> f64 {
        self.backlog_s * self.question.request.prompt_share_ahead
    }

    fn decode_s(&self) -> f64 {
        let must_end = self.seat.share_in_use_needed(self.question);
        must_end * self.seat.view.output_tokens() * self.step_s + self.step_s
    }

    /// Between two tokens, with the request: a step, and what prompts take of the time.
    fn gap_s(&self) -> f64 {
        self.step_s / (1.0 - self.prompts_share)
    }

    /// Between two tokens of those that are generated here, if the request's part comes to them: at the pace of lately, or with
    /// the prompts that wait now computed beside them, whichever is longer.
    pub(super) fn gap_with_s(&self, part: Part) -> f64 {
        let own_s = if part == Part::Decode { 0.0 } else { self.lost_s };
        let spread_s = (self.backlog_s + own_s) / self.seat.view.output_tokens().max(1.0);
        self.gap_s().max(self.step_s + spread_s)
    }

    /// What computing the prompt here takes from others.
    ///
    /// - `rows`: sequences that are generated beside it.
    fn prompt_stall_s(&self, rows: u32) -> f64 {
        f64::from(rows) * self.lost_s + self.prompts_behind() * self.prefill_s
    }

    /// What generating here takes from others: of the sequences each has longer steps, to its end or the request's; and prompts,
    /// those that wait and those behind them, are computed in the time that is left.
    ///
    /// The first row brings steps that there were none of. On a prefill worker that counts for one prompt at least, the next to come.
    fn row_stall_s(&self) -> f64 {
        let sequences = self.question.request.sequences;
        let rows = self.seat.rows_with(self.question).saturating_sub(sequences);
        let least = if self.seat.role() == Role::Prefill { 1.0 } else { 0.0 };
        let prompts = f64::from(self.prompts_waiting()) + self.prompts_behind();
        let prompts = (self.output_tokens * prompts).max(least);
        self.longer_s * (f64::from(rows) * self.output_tokens + prompts)
    }

    /// Prompts that will have come before this worker has caught up, and so come later by what it does first: where they come at
    /// random, the part of its time that goes to prompts over the rest, for each that waits and once more.
    fn prompts_behind(&self) -> f64 {
        let waiting = f64::from(self.prompts_waiting());
        (waiting + 1.0) * self.prompts_share / (1.0 - self.prompts_share)
    }

    /// Prompts that are not computed yet; at least one where any tokens aren't.
    fn prompts_waiting(&self) -> u32 {
        let view = self.seat.view;
        let others = view.sequences().saturating_sub(view.generating());
        if self.backlog_s > 0.0 { others.max(1) } else { 0 }
    }
}
