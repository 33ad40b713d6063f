//! One worker's room and speed for one request.

use std::time::Instant;

use words::{Capacity, Role};

use super::{Assigned, Part, PlacementRequest, Rejection, WorkerView};
use crate::cost::prior::OUTPUT_TOKENS;
use crate::cost::{Estimates, Rates, Terms};

/// The longest that a backlog is thought to have shrunk since its report. A worker that has gone
/// silent must not look idle before its health says that it is gone.
const DRAIN_S_MAX: f64 = 1.0;

/// A worker that could serve the request.
#[derive(Clone, Copy)]
pub(super) struct Seat<'a> {
    pub(super) view: &'a WorkerView,
    /// Position among the group's workers of its role, rotated by the request's turn: the last
    /// tie-break.
    pub(super) rotated: usize,
}

/// What every seat's judgement needs.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) request: &'a PlacementRequest<'a>,
    pub(super) pool: &'a Rates,
    pub(super) now: Instant,
}

/// A seat that takes the request, and at what cost.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    pub(super) seat: Seat<'a>,
    pub(super) terms: Terms,
    pub(super) pace: Pace,
}

/// How fast a worker generates.
#[derive(Clone, Copy, Default)]
pub(super) struct Pace {
    /// A decode step with the request.
    pub(super) step_s: f64,
    /// A decode step with nothing else.
    pub(super) alone_s: f64,
    /// Until a sequence ends.
    pub(super) release_s: f64,
}

// === impl WorkerView ===

impl WorkerView {
    /// Whether the worker can be considered for the request at all.
    pub(super) fn standing(&self, request: &PlacementRequest<'_>) -> Result<(), Rejection> {
        if self.info.fingerprint.model != request.model {
            Err(Rejection::OtherModel)
        } else if !request.fingerprint.is_none_or(|it| it.computes_as(&self.info.fingerprint)) {
            Err(Rejection::OtherFingerprint)
        } else if !self.info.state.takes_work() {
            Err(Rejection::NotServing)
        } else if !self.healthy {
            Err(Rejection::Unhealthy)
        } else if request.excluded.iter().any(|life| life.is_at(&self.info.address)) {
            Err(Rejection::Excluded)
        } else {
            Ok(())
        }
    }

    /// KV blocks the request takes here in the given part.
    pub(super) fn blocks_for(&self, request: &PlacementRequest<'_>, part: Part) -> u32 {
        let block_tokens = self.info.capacity.block_tokens.max(1);
        let prompt = request.context_tokens.div_ceil(block_tokens);
        if part == Part::Prefill {
            return prompt;
        }
        let (shared, each) = self.blocks_of_sequences(request);
        shared.saturating_add(each.saturating_mul(request.sequences)).max(prompt)
    }

    /// The blocks that the request's sequences share, the prompt's full ones, and those that each has for itself, from
    /// the first partial one on.
    fn blocks_of_sequences(&self, request: &PlacementRequest<'_>) -> (u32, u32) {
        let block_tokens = self.info.capacity.block_tokens.max(1);
        let shared = request.context_tokens / block_tokens;
        let each = request.total_tokens_max.div_ceil(block_tokens).saturating_sub(shared);
        (shared, each)
    }

    /// The most sequences of the request's length that the worker could run if it were idle.
    pub(super) fn sequences_max(&self, request: &PlacementRequest<'_>) -> u32 {
        let Capacity { kv_blocks, sequences_max, .. } = self.info.capacity;
        if request.total_tokens_max > self.tokens_max() {
            return 0;
        }
        let (shared, each) = self.blocks_of_sequences(request);
        let by_blocks = kv_blocks.saturating_sub(shared) / each.max(1);
        if sequences_max == 0 { by_blocks } else { by_blocks.min(sequences_max) }
    }

    /// The longest sequence the worker could hold if it were idle.
    pub(super) fn tokens_max(&self) -> u32 {
        let capacity = &self.info.capacity;
        let pool = capacity.kv_blocks.saturating_mul(capacity.block_tokens);
        if capacity.context_tokens_max == 0 { pool } else { pool.min(capacity.context_tokens_max) }
    }

    /// Whether the request could ever run here.
    pub(super) fn could_hold(&self, request: &PlacementRequest<'_>, part: Part) -> bool {
        let tokens =
            if part == Part::Prefill { request.context_tokens } else { request.total_tokens_max };
        let sequences_max = self.info.capacity.sequences_max;
        let fits_at_once =
            part == Part::Prefill || sequences_max == 0 || request.sequences <= sequences_max;
        fits_at_once
            && tokens <= self.tokens_max()
            && self.blocks_for(request, part) <= self.info.capacity.kv_blocks
    }

    /// Sequences running, queued or on their way.
    fn sequences(&self) -> u32 {
        let reported =
            self.load.as_ref().map_or(0, |load| load.running.saturating_add(load.waiting));
        reported.saturating_add(self.assigned.sequences)
    }

    /// Sequences that come before the request: those that run, and its part of those that wait.
    fn ahead(&self, request: &PlacementRequest<'_>) -> u32 {
        let (running, waiting) =
            self.load.as_ref().map_or((0, 0), |load| (load.running, load.waiting));
        let waiting = f64::from(waiting.saturating_add(self.assigned.sequences));
        running.saturating_add((waiting * request.share_ahead).ceil() as u32)
    }

    /// Blocks that nobody has or will need who comes before the request.
    fn free_blocks(&self, request: &PlacementRequest<'_>) -> u32 {
        let (free, promised, wanted) =
            self.load.as_ref().map_or((self.info.capacity.kv_blocks, 0, 0), |load| {
                (load.free_blocks, load.promised_blocks, load.wanted_blocks)
            });
        let waiting = f64::from(wanted.saturating_add(self.assigned.blocks));
        let ahead = (waiting * request.share_ahead).ceil() as u32;
        free.saturating_sub(promised).saturating_sub(ahead)
    }

    /// Tokens after which a sequence ends, as measured.
    fn output_tokens(&self) -> f64 {
        let measured = self.load.as_ref().map_or(0.0, |load| load.output_tokens);
        if measured > 0.0 { measured } else { OUTPUT_TOKENS }
    }
}

// === impl Seat ===

impl<'a> Seat<'a> {
    pub(super) fn role(&self) -> Role {
        self.view.info.role
    }

    /// Judges the seat for one part.
    ///
    /// # Errors
    /// The seconds after which there is likely to be room, if there is none.
    pub(super) fn judge(self, question: Question<'_>, part: Part) -> Result<Offer<'a>, f64> {
        if self.is_full(question.request) {
            return Err(self.room_in_s(question));
        }
        let terms = match part {
            Part::Prefill => self.prefill_terms(question),
            Part::Decode => self.decode_terms(question),
            Part::Both => self.local_terms(question),
        };
        let pace = if part == Part::Prefill { Pace::default() } else { self.pace(question) };
        Ok(Offer { seat: self, terms, pace })
    }

    /// What the worker is given if the seat is taken.
    pub(super) fn work(self, request: &PlacementRequest<'_>, part: Part) -> Assigned {
        let computes = part != Part::Decode;
        Assigned {
            prefill_tokens: if computes { request.context_tokens.into() } else { 0 },
            sequences: if part == Part::Prefill { 1 } else { request.sequences },
            blocks: self.view.blocks_for(request, part),
        }
    }

    /// `queue + prefill + hand-off`.
    fn prefill_terms(self, question: Question<'_>) -> Terms {
        let tokens = question.request.context_tokens;
        let estimates = self.estimates(question);
        Terms {
            queue_s: self.queue_s(question),
            prefill_s: estimates.prefill_s(tokens.into()),
            handoff_s: estimates.handoff_s(tokens),
            ..Terms::default()
        }
    }

    /// The wait for a slot and blocks, and one step; prompts that this worker still computes itself
    /// slow the sequence down, by about their own time.
    fn decode_terms(self, question: Question<'_>) -> Terms {
        Terms {
            decode_s: self.decode_s(question),
            stall_s: self.backlog_s(question),
            ..Terms::default()
        }
    }

    /// As without a hand-off, and all that run here wait while the prompt is computed. One sequence
    /// at least is counted, the next to come: otherwise an idle decode worker would take prompts of
    /// any length, and the requests that follow would find it busy.
    fn local_terms(self, question: Question<'_>) -> Terms {
        let prefill_s = self.estimates(question).prefill_s(question.request.context_tokens.into());
        Terms {
            queue_s: self.queue_s(question),
            prefill_s,
            handoff_s: 0.0,
            decode_s: self.decode_s(question),
            stall_s: prefill_s * f64::from(self.view.sequences().max(1)),
        }
    }

    fn estimates<'q>(self, question: Question<'q>) -> Estimates<'q>
    where
        'a: 'q,
    {
        Estimates { own: &self.view.rates, pool: question.pool }
    }

    fn is_full(self, request: &PlacementRequest<'_>) -> bool {
        let capacity = &self.view.info.capacity;
        let limit = capacity.sequences_max.saturating_add(capacity.queue_max);
        // For a prompt that is computed for somebody else the number of sequences is no matter.
        let asked = request.sequences.min(capacity.sequences_max.max(1));
        capacity.sequences_max > 0 && self.view.ahead(request).saturating_add(asked) > limit
    }

    /// The part of the backlog that comes before the request.
    fn queue_s(self, question: Question<'_>) -> f64 {
        self.backlog_s(question) * question.request.prompt_share_ahead
    }

    /// Prompt tokens here, in seconds: as reported, less what has been computed since, plus what
    /// has been placed since.
    pub(super) fn backlog_s(self, question: Question<'_>) -> f64 {
        let reported = self.view.load.as_ref().map_or(0, |load| load.queued_prefill_tokens);
        let tokens = reported.saturating_add(self.view.assigned.prefill_tokens);
        let age_s = self.view.reported_at.map_or(0.0, |at| {
            question.now.saturating_duration_since(at).as_secs_f64().min(DRAIN_S_MAX)
        });
        (self.estimates(question).prefill_s(tokens as f64) - age_s).max(0.0)
    }

    fn decode_s(self, question: Question<'_>) -> f64 {
        let sequences = self.sequences_with(question);
        let step_s = self.estimates(question).decode_step_s(self.running_at_most(sequences));
        let must_end = self.share_in_use_needed(question, sequences);
        must_end * self.view.output_tokens() * step_s + step_s
    }

    /// Sequences here, once the request is among them.
    fn sequences_with(self, question: Question<'_>) -> u32 {
        self.view.ahead(question.request).saturating_add(question.request.sequences)
    }

    fn pace(self, question: Question<'_>) -> Pace {
        let running = self.running_at_most(self.sequences_with(question));
        let alone = self.running_at_most(question.request.sequences);
        let estimates = self.estimates(question);
        let step_s = estimates.decode_step_s(running);
        Pace {
            step_s,
            alone_s: estimates.decode_step_s(alone).min(step_s),
            release_s: step_s * self.view.output_tokens() / f64::from(running.max(1)),
        }
    }

    /// The share of the running sequences that must end before this request can run: by slots and by
    /// blocks, whichever is more. Sequences of typical length end evenly over their time.
    fn share_in_use_needed(self, question: Question<'_>, sequences: u32) -> f64 {
        let capacity = &self.view.info.capacity;
        let slots_short = sequences.saturating_sub(self.running_at_most(sequences));
        let slots = f64::from(slots_short) / f64::from(capacity.sequences_max.max(1));
        let need = self.view.blocks_for(question.request, Part::Both);
        let free = self.view.free_blocks(question.request);
        let used = capacity.kv_blocks.saturating_sub(free).max(1);
        let blocks = f64::from(need.saturating_sub(free)) / f64::from(used);
        slots.max(blocks)
    }

    fn running_at_most(self, sequences: u32) -> u32 {
        match self.view.info.capacity.sequences_max {
            0 => sequences,
            limit => sequences.min(limit),
        }
    }

    /// Until one of what is here ends: a prompt on a prefill worker, a sequence on a decode worker.
    fn room_in_s(self, question: Question<'_>) -> f64 {
        let sequences = self.view.sequences().max(1);
        let all_s = match self.role() {
            Role::Prefill => self.backlog_s(question),
            Role::Decode => {
                let running = self.running_at_most(sequences);
                self.view.output_tokens() * self.estimates(question).decode_step_s(running)
            }
        };
        all_s / f64::from(sequences)
    }
}

// === impl Offer ===

impl Offer<'_> {
    /// Least cost first; then the fewest sequences, since two backlogs that have drained look
    /// alike; then by turns.
    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        let busy = |offer: &Self| (offer.seat.view.sequences(), offer.seat.rotated);
        self.terms
            .cost_s()
            .total_cmp(&other.terms.cost_s())
            .then_with(|| busy(self).cmp(&busy(other)))
    }
}
