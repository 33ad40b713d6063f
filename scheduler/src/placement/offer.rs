//! What a worker offers for one part of a request: whether it can, at what cost, and what it would do to what it has.

use words::Role;

use super::price::Price;
use super::seat::{Pace, Question, Seat};
use super::{Part, Verdict};
use crate::admission;
use crate::cost::Terms;

/// The part of a prefill worker's places and blocks that sequences generated there may fill while decode workers are
/// there; the rest is for prompts of others, which need them for a moment only.
const GUESTS_SHARE_MAX: f64 = 0.75;

/// The part of a prefill worker's time that goes to prompts, up to which it takes sequences to generate. Their steps would take
/// from the rest what prompts need when they come at once.
const PROMPTS_SHARE_MAX: f64 = 0.5;

/// A seat that takes the request, and at what cost.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    pub(super) seat: Seat<'a>,
    pub(super) terms: Terms,
    pub(super) pace: Pace,
    /// Tokens of the prompt that it would compute, if it computes the prompt.
    pub(super) computed_tokens: u32,
    /// Whether sequences that are generated there would miss their target, or prompts would be crowded out: then it is for
    /// want of others.
    pub(super) strains: bool,
    /// Whether it takes what a prefill worker needs for prompts.
    pub(super) crowds: bool,
}

// === impl Offer ===

impl<'a> Offer<'a> {
    /// What the seat offers for one part.
    ///
    /// # Errors
    /// The seconds after which there is likely to be room, if there is none.
    pub(super) fn of(seat: Seat<'a>, question: Question<'_>, part: Part) -> Result<Self, f64> {
        if seat.is_full(question.request) {
            return Err(seat.room_in_s(question));
        }
        let price = Price::new(seat, question);
        let pace = if part == Part::Prefill { Pace::default() } else { price.pace() };
        let is_guest = seat.role() == Role::Prefill && part == Part::Both;
        let crowds = is_guest && crowds(seat, question, &price);
        let strains = crowds || strains(seat, question, part, &price);
        let computed_tokens = price.computed_tokens();
        Ok(Self { seat, terms: price.terms(part), pace, computed_tokens, strains, crowds })
    }

    pub(super) fn verdict(&self) -> Verdict {
        if self.strains { Verdict::Strained(self.terms) } else { Verdict::Possible(self.terms) }
    }

    /// Those that strain nobody first, and least cost; then the fewest sequences, since two backlogs that have drained look
    /// alike; then by turns.
    pub(super) fn order(&self, other: &Self) -> std::cmp::Ordering {
        let busy = |offer: &Self| (offer.seat.view.sequences(), offer.seat.rotated);
        self.strains
            .cmp(&other.strains)
            .then_with(|| self.terms.cost_s().total_cmp(&other.terms.cost_s()))
            .then_with(|| busy(self).cmp(&busy(other)))
    }
}

/// Whether this part of the request is more than what is generated here can bear, by its target.
fn strains(seat: Seat<'_>, question: Question<'_>, part: Part, price: &Price<'_>) -> bool {
    let bearable_s = admission::attainable(question.tpot, price.pace().alone_s);
    let generates = part != Part::Prefill && seat.view.generating() > 0;
    generates && price.gap_with_s(part) > bearable_s
}

/// Whether the request would be generated in what this prefill worker needs for prompts.
fn crowds(seat: Seat<'_>, question: Question<'_>, price: &Price<'_>) -> bool {
    let (request, capacity) = (question.request, &seat.view.info.capacity);
    let part = |taken: u32, all: u32| f64::from(taken) / f64::from(all.max(1));
    let guests = seat.view.generating().saturating_add(request.sequences);
    let free = seat.view.free_blocks(request);
    let left = free.saturating_sub(seat.view.blocks_for(request, Part::Both));
    let taken = capacity.kv_blocks.saturating_sub(left);
    price.prompts_share() > PROMPTS_SHARE_MAX
        || capacity.sequences_max > 0 && part(guests, capacity.sequences_max) > GUESTS_SHARE_MAX
        || part(taken, capacity.kv_blocks) > GUESTS_SHARE_MAX
}
