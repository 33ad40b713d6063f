//! One worker's room and pace for one request.

use std::time::{Duration, Instant};

use words::{Capacity, Role};

use super::{Assigned, CachedTokens, Part, PlacementRequest, Rejection, WorkerView};
use crate::cost::prior::{self, OUTPUT_TOKENS};
use crate::cost::{Estimates, Rates};

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
    /// The speed of all workers it is compared with.
    pub(super) pool: &'a Rates,
    /// Tokens that a sequence has there.
    pub(super) output_tokens: f64,
    /// What sequences are held to.
    pub(super) tpot: Duration,
    pub(super) now: Instant,
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
    pub(super) fn sequences(&self) -> u32 {
        let reported =
            self.load.as_ref().map_or(0, |load| load.running.saturating_add(load.waiting));
        reported.saturating_add(self.assigned.sequences)
    }

    /// Sequences that are generated here. On a decode worker that is whatever it has, and those whose prompt is computed
    /// elsewhere; of what a prefill worker has, most are prompts for others.
    pub(super) fn generating(&self) -> u32 {
        let reported = self.load.as_ref().map_or(0, |load| load.generating);
        let generating = reported.saturating_add(self.assigned.generating);
        match self.info.role {
            Role::Prefill => generating.min(self.sequences()),
            Role::Decode => generating.max(self.sequences()),
        }
    }

    /// Sequences that come before the request: those that run, and its part of those that wait.
    fn ahead(&self, request: &PlacementRequest<'_>) -> u32 {
        let (running, waiting) =
            self.load.as_ref().map_or((0, 0), |load| (load.running, load.waiting));
        let waiting = f64::from(waiting.saturating_add(self.assigned.sequences));
        running.saturating_add((waiting * request.share_ahead).ceil() as u32)
    }

    /// Blocks that nobody has or will need who comes before the request.
    pub(super) fn free_blocks(&self, request: &PlacementRequest<'_>) -> u32 {
        let (free, promised, wanted) =
            self.load.as_ref().map_or((self.info.capacity.kv_blocks, 0, 0), |load| {
                (load.free_blocks, load.promised_blocks, load.wanted_blocks)
            });
        let waiting = f64::from(wanted.saturating_add(self.assigned.blocks));
        let ahead = (waiting * request.share_ahead).ceil() as u32;
        free.saturating_sub(promised).saturating_sub(ahead)
    }

    /// Tokens after which a sequence ends, as measured.
    pub(super) fn output_tokens(&self) -> f64 {
        self.measured_output_tokens().unwrap_or(OUTPUT_TOKENS)
    }

    pub(super) fn measured_output_tokens(&self) -> Option<f64> {
        self.load.as_ref().map(|load| load.output_tokens).filter(|tokens| *tokens > 0.0)
    }
}

// === impl Seat ===

impl<'a> Seat<'a> {
    pub(super) fn role(&self) -> Role {
        self.view.info.role
    }

    /// What the worker has of the prompt, of which one token at least is always computed.
    pub(super) fn cached(self, request: &PlacementRequest<'_>) -> CachedTokens {
        let most = request.context_tokens.saturating_sub(1);
        let CachedTokens { device, host, disk } = self.view.cached;
        CachedTokens { device: device.min(most), host: host.min(most), disk: disk.min(most) }
    }

    /// Tokens of the prompt that it computes, and seconds in which it fetches others from its lower tiers: whichever tiers
    /// make it the least time in all.
    pub(super) fn uncached(self, question: Question<'_>) -> (u32, f64) {
        let (request, estimates) = (question.request, self.estimates(question));
        let CachedTokens { device, host, disk } = self.cached(request);
        let from_host_s = restore_s(host.saturating_sub(device), prior::HOST_S_PER_TOKEN);
        let from_disk_s = restore_s(disk.saturating_sub(host), prior::DISK_S_PER_TOKEN);
        let ways = [(device, 0.0), (host, from_host_s), (disk, from_host_s + from_disk_s)]
            .map(|(cached, fetched_s)| (request.context_tokens - cached, fetched_s));
        let takes_s =
            |(tokens, fetched_s): &(u32, f64)| estimates.prefill_s((*tokens).into()) + fetched_s;
        let [first, rest @ ..] = ways;
        rest.into_iter().fold(
            first,
            |best, way| {
                if takes_s(&way) < takes_s(&best) { way } else { best }
            },
        )
    }

    /// What the worker is given if the seat is taken.
    ///
    /// - `computed_tokens`: of the prompt, if it computes it.
    pub(super) fn work(
        self,
        request: &PlacementRequest<'_>,
        part: Part,
        computed_tokens: u32,
    ) -> Assigned {
        let computes = part != Part::Decode;
        Assigned {
            prefill_tokens: if computes { computed_tokens.into() } else { 0 },
            sequences: if part == Part::Prefill { 1 } else { request.sequences },
            generating: if part == Part::Prefill { 0 } else { request.sequences },
            blocks: self.view.blocks_for(request, part),
        }
    }

    pub(super) fn estimates<'q>(self, question: Question<'q>) -> Estimates<'q>
    where
        'a: 'q,
    {
        Estimates { own: &self.view.rates, pool: question.pool }
    }

    pub(super) fn is_full(self, request: &PlacementRequest<'_>) -> bool {
        let capacity = &self.view.info.capacity;
        let limit = capacity.sequences_max.saturating_add(capacity.queue_max);
        // For a prompt that is computed for somebody else the number of sequences is no matter.
        let asked = request.sequences.min(capacity.sequences_max.max(1));
        capacity.sequences_max > 0 && self.view.ahead(request).saturating_add(asked) > limit
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

    /// The share of the running sequences that must end before this request can run: by slots and by
    /// blocks, whichever is more. Sequences of typical length end evenly over their time.
    pub(super) fn share_in_use_needed(self, question: Question<'_>) -> f64 {
        let capacity = &self.view.info.capacity;
        let sequences = self.sequences_with(question);
        let slots_short = sequences.saturating_sub(self.running_at_most(sequences));
        let slots = f64::from(slots_short) / f64::from(capacity.sequences_max.max(1));
        let need = self.view.blocks_for(question.request, Part::Both);
        let free = self.view.free_blocks(question.request);
        let used = capacity.kv_blocks.saturating_sub(free).max(1);
        let blocks = f64::from(need.saturating_sub(free)) / f64::from(used);
        slots.max(blocks)
    }

    /// Sequences here, once the request is among them.
    fn sequences_with(self, question: Question<'_>) -> u32 {
        self.view.ahead(question.request).saturating_add(question.request.sequences)
    }

    /// Sequences in a decode step here, once the request is among them.
    pub(super) fn rows_with(self, question: Question<'_>) -> u32 {
        let sequences = match self.role() {
            Role::Prefill => self.view.generating().saturating_add(question.request.sequences),
            Role::Decode => self.sequences_with(question),
        };
        self.running_at_most(sequences)
    }

    pub(super) fn running_at_most(self, sequences: u32) -> u32 {
        match self.view.info.capacity.sequences_max {
            0 => sequences,
            limit => sequences.min(limit),
        }
    }

    /// Until one of what is here ends: a prompt on a prefill worker, a sequence on a decode worker.
    pub(super) fn room_in_s(self, question: Question<'_>) -> f64 {
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

/// Seconds to fetch `tokens` from a lower tier.
fn restore_s(tokens: u32, s_per_token: f64) -> f64 {
    f64::from(tokens) * s_per_token
}
