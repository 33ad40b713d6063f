//! The policy: the least expected seconds, for everybody, wherever what is cached makes them fewer.

use std::cmp::Ordering;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use smallvec::smallvec;
use words::{Fingerprint, Role};

use super::group::Group;
use super::offer::Offer;
use super::seat::{Question, Seat};
use super::{
    ClusterSnapshot, Part, Path, Placement, PlacementReason, PlacementRequest, Placer, Refusal,
    Rejection, Verdict, WorkerView,
};
use crate::admission::{decide, retry_after, unlearned_s};
use crate::cost::Terms;
use crate::{Forecast, SloTargets};

/// Prefill workers named in a placement: the chosen one and those to try after it.
const PREFILL_CHOICES_MAX: usize = 4;

/// Places each request where it costs the fewest seconds.
///
/// For every group of workers that can exchange blocks, three ways are compared by everybody's waiting (the terms are in
/// `price`):
///
/// - a prefill worker computes the prompt and hands it over to a decode worker, which generates;
/// - a decode worker does both, and what it generates falls behind meanwhile;
/// - a prefill worker does both, and the prompts that come to it have less of its time.
///
/// A short prompt is thus computed locally while the decode worker is nearly idle, a long one when prefill workers
/// are behind and decode workers have time to spare, and a prefill worker generates when it is idle and decode workers
/// aren't. What would push those that are generated already beyond their target is the last resort, whatever it costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastLoad {
    /// Whether prompts are handed over.
    pub handoff: HandoffPolicy,
    /// What answers are held to.
    pub targets: SloTargets,
}

/// When a prompt is computed on another worker than the one that generates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandoffPolicy {
    /// When that costs less; and where it doesn't, either kind of worker may do both.
    #[default]
    Auto,
    /// Whenever a prefill worker has room.
    Always,
    /// Only when there is no decode worker to do it.
    Never,
}

/// What a group offers.
struct Plan<'a> {
    decode: Offer<'a>,
    /// Best first; empty for a local plan.
    prefill: Vec<Offer<'a>>,
    reason: PlacementReason,
}

/// No room: seconds until there is likely to be some.
#[derive(Clone, Copy)]
struct Full {
    room_in_s: f64,
}

/// One decision in the making.
struct Decision<'a> {
    policy: HandoffPolicy,
    targets: SloTargets,
    request: &'a PlacementRequest<'a>,
    now: Instant,
}

// === impl LeastLoad ===

impl Placer for LeastLoad {
    fn place(
        &self,
        view: &ClusterSnapshot,
        request: &PlacementRequest<'_>,
        now: Instant,
    ) -> Result<Placement, Refusal> {
        let decision = Decision { policy: self.handoff, targets: self.targets, request, now };
        let groups = decision.groups(view)?;
        let mut best: Option<Plan<'_>> = None;
        let mut room_in_s = f64::INFINITY;
        for group in &groups {
            match decision.plan(group) {
                Ok(plan) if best.as_ref().is_none_or(|it| decision.order(&plan, it).is_lt()) => {
                    best = Some(plan);
                }
                Ok(_) => {}
                Err(full) => room_in_s = room_in_s.min(full.room_in_s),
            }
        }
        match best {
            Some(plan) => Ok(decision.placement(&plan)),
            // No wait would help: the only workers left for a part are too small for it.
            None if room_in_s == f64::INFINITY => Err(decision.too_large(view)),
            None => Err(Refusal::Busy { retry_after: retry_after(room_in_s, request.turn) }),
        }
    }
}

// === impl Decision ===

impl<'a> Decision<'a> {
    /// The workers that could serve the request, by whom they can exchange blocks with.
    fn groups(&self, view: &'a ClusterSnapshot) -> Result<Vec<Group<'a>>, Refusal> {
        let mut groups: Vec<Group<'a>> = Vec::new();
        for worker in &view.workers {
            match self.standing(worker) {
                Ok(()) => Group::add(&mut groups, worker),
                Err(rejection) => {
                    let part = part_named(worker.info.role);
                    self.note(worker, part, Verdict::Rejected(rejection));
                }
            }
        }
        if groups.is_empty() {
            return Err(self.refusal(view));
        }
        groups.iter_mut().for_each(|group| group.complete(view, self.request));
        Ok(groups)
    }

    fn standing(&self, worker: &WorkerView) -> Result<(), Rejection> {
        worker.standing(self.request)?;
        let fits = worker.could_hold(self.request, part_named(worker.info.role));
        if fits { Ok(()) } else { Err(Rejection::TooSmall) }
    }

    /// Why there is nobody to ask.
    fn refusal(&self, view: &ClusterSnapshot) -> Refusal {
        if view.workers.iter().any(|worker| worker.standing(self.request).is_ok()) {
            return self.too_large(view);
        }
        let has_model = |worker: &WorkerView| worker.info.fingerprint.model == self.request.model;
        if !view.workers.is_empty() && !view.workers.iter().any(has_model) {
            return Refusal::ModelMissing;
        }
        let is_wanted = |wanted: &Fingerprint| {
            view.workers.iter().any(|worker| wanted.computes_as(&worker.info.fingerprint))
        };
        match self.request.fingerprint {
            Some(wanted) if !is_wanted(wanted) => Refusal::WeightsMissing,
            _ => Refusal::NoWorkers,
        }
    }

    /// Which of its sizes keeps the request from all workers.
    fn too_large(&self, view: &ClusterSnapshot) -> Refusal {
        let willing = || view.workers.iter().filter(|it| it.standing(self.request).is_ok());
        let tokens_max = willing().map(WorkerView::tokens_max).max().unwrap_or(0);
        let PlacementRequest { total_tokens_max: tokens, sequences, .. } = *self.request;
        if tokens > tokens_max {
            return Refusal::TooLong { tokens, tokens_max };
        }
        let widths = willing().map(|worker| worker.sequences_max(self.request));
        Refusal::TooWide { sequences, sequences_max: widths.max().unwrap_or(0), tokens }
    }

    fn plan<'g>(&self, group: &'g Group<'a>) -> Result<Plan<'g>, Full> {
        let local = PlacementReason::LocalPolicy;
        match (group.prefill.is_empty(), group.decode.is_empty(), self.policy) {
            (_, true, _) => self.without_decode(group),
            (_, _, HandoffPolicy::Never) => self.local(group, &group.decode, local),
            (true, _, _) => self.local(group, &group.decode, PlacementReason::PrefillPoolEmpty),
            (_, _, HandoffPolicy::Always) => self.handoff(group, PlacementReason::HandoffPolicy),
            (_, _, HandoffPolicy::Auto) => self.cheapest(group),
        }
    }

    /// Where decode workers are there, and only this request can't go to them, it is by choice that a prefill worker with
    /// time to spare generates.
    fn without_decode<'g>(&self, group: &'g Group<'a>) -> Result<Plan<'g>, Full> {
        use PlacementReason::{DecodePoolEmpty, DecodePoolExcluded};
        let why = if group.has_excluded { DecodePoolExcluded } else { DecodePoolEmpty };
        let plan = self.local(group, &group.prefill, why)?;
        let chooses = self.policy == HandoffPolicy::Auto && group.has_excluded;
        let is_by_choice = chooses && !plan.decode.strains;
        let reason = if is_by_choice { PlacementReason::PrefillDecodes } else { plan.reason };
        Ok(Plan { reason, ..plan })
    }

    /// The best of all ways; where there is none, decode workers' room is waited for. Prompts are not crowded out for less:
    /// a prefill worker that generates beside them is no good for either, and what it has begun lasts.
    fn cheapest<'g>(&self, group: &'g Group<'a>) -> Result<Plan<'g>, Full> {
        use PlacementReason::{HandoffCheaper, LocalCheaper, PrefillDecodes, PrefillPoolFull};
        let prefill = self.offers(group, &group.prefill, Part::Prefill);
        let instead = if prefill.is_ok() { LocalCheaper } else { PrefillPoolFull };
        let handed_over = prefill.and_then(|offers| self.pair(group, offers, HandoffCheaper));
        let on_decode = self.local(group, &group.decode, instead);
        let refused = on_decode.as_ref().err().copied();
        let on_prefill = self.local(group, &group.prefill, PrefillDecodes);
        let on_prefill = on_prefill.ok().filter(|plan| !plan.decode.crowds);
        let ways = [handed_over.ok(), on_decode.ok(), on_prefill].into_iter().flatten();
        ways.min_by(|a, b| self.order(a, b))
            .ok_or(refused.unwrap_or(Full { room_in_s: f64::INFINITY }))
    }

    /// The best pair; local where no prefill worker has room.
    fn handoff<'g>(&self, group: &'g Group<'a>, reason: PlacementReason) -> Result<Plan<'g>, Full> {
        let Ok(prefill) = self.offers(group, &group.prefill, Part::Prefill) else {
            return self.local(group, &group.decode, PlacementReason::PrefillPoolFull);
        };
        self.pair(group, prefill, reason)
    }

    fn pair<'g>(
        &self,
        group: &'g Group<'a>,
        mut prefill: Vec<Offer<'g>>,
        reason: PlacementReason,
    ) -> Result<Plan<'g>, Full> {
        let decode = best(self.offers(group, &group.decode, Part::Decode)?);
        prefill.sort_unstable_by(Offer::order);
        prefill.truncate(PREFILL_CHOICES_MAX);
        Ok(Plan { decode, prefill, reason })
    }

    fn local<'g>(
        &self,
        group: &'g Group<'a>,
        seats: &'g [Seat<'a>],
        reason: PlacementReason,
    ) -> Result<Plan<'g>, Full> {
        let decode = best(self.offers(group, seats, Part::Both)?);
        Ok(Plan { decode, prefill: Vec::new(), reason })
    }

    /// The offers of all seats that have room; never empty.
    fn offers<'g>(
        &self,
        group: &'g Group<'a>,
        seats: &'g [Seat<'a>],
        part: Part,
    ) -> Result<Vec<Offer<'g>>, Full> {
        let question = Question {
            request: self.request,
            pool: &group.rates,
            output_tokens: group.output_tokens,
            tpot: self.targets.tpot,
            now: self.now,
        };
        let mut offers = Vec::with_capacity(seats.len());
        let mut room_in_s = f64::INFINITY;
        for seat in seats {
            if !seat.view.could_hold(self.request, part) {
                self.note(seat.view, part, Verdict::Rejected(Rejection::TooSmall));
                continue;
            }
            match Offer::of(*seat, question, part) {
                Ok(offer) => {
                    self.note(seat.view, part, offer.verdict());
                    offers.push(offer);
                }
                Err(seconds) => {
                    self.note(seat.view, part, Verdict::Rejected(Rejection::Full));
                    room_in_s = room_in_s.min(seconds);
                }
            }
        }
        if offers.is_empty() { Err(Full { room_in_s }) } else { Ok(offers) }
    }

    fn note(&self, worker: &WorkerView, part: Part, verdict: Verdict) {
        if let Some(notes) = self.request.notes {
            notes.add(worker, part, verdict);
        }
    }

    /// A group with both pools goes before one that has lost one; then what keeps the targets, its own and others'; then the
    /// least cost.
    fn order(&self, a: &Plan<'_>, b: &Plan<'_>) -> Ordering {
        let rank = |plan: &Plan<'_>| (plan.is_halved(), self.misses(plan));
        let by_cost = || a.terms().cost_s().total_cmp(&b.terms().cost_s());
        rank(a).cmp(&rank(b)).then_with(by_cost)
    }

    /// Whether the request would miss its targets so placed, or what is generated there already would.
    fn misses(&self, plan: &Plan<'_>) -> bool {
        plan.decode.strains || decide(&self.forecast(plan), &self.targets).is_err()
    }

    fn forecast(&self, plan: &Plan<'_>) -> Forecast {
        let (terms, pace) = (plan.terms(), plan.decode.pace);
        Forecast {
            wait_s: terms.queue_s + (terms.decode_s - pace.step_s).max(0.0),
            own_s: terms.prefill_s + terms.handoff_s + pace.step_s,
            step_s: pace.step_s,
            step_alone_s: pace.alone_s,
            release_s: pace.release_s,
            margin_s: unlearned_s(self.targets.ttft),
            is_short: self.request.is_short,
        }
    }

    fn placement(&self, plan: &Plan<'_>) -> Placement {
        let terms = plan.terms();
        let address = |offer: &Offer<'_>| offer.seat.view.info.address.clone();
        let work = |offer: &Offer<'_>, part| {
            let worker = offer.seat.view.info.address.worker.clone();
            (worker, offer.seat.work(self.request, part, offer.computed_tokens))
        };
        let (path, work) = match plan.prefill.first() {
            Some(prefill) => {
                let parts =
                    smallvec![work(prefill, Part::Prefill), work(&plan.decode, Part::Decode)];
                (Path::Handoff, parts)
            }
            None => (Path::Local, smallvec![work(&plan.decode, Part::Both)]),
        };
        Placement {
            decode: address(&plan.decode),
            fingerprint: plan.decode.seat.view.info.fingerprint.clone(),
            prefill: plan.prefill.iter().map(address).collect(),
            path,
            reason: plan.reason,
            terms,
            estimated_ttft_s: terms.ttft_s(),
            forecast: self.forecast(plan),
            cached_tokens: self.request.context_tokens - plan.computes().computed_tokens,
            work,
        }
    }
}

fn part_named(role: Role) -> Part {
    match role {
        Role::Prefill => Part::Prefill,
        Role::Decode => Part::Decode,
    }
}

fn best(offers: Vec<Offer<'_>>) -> Offer<'_> {
    offers.into_iter().min_by(Offer::order).expect("offers are never empty")
}

// === impl Plan ===

impl Plan<'_> {
    /// Whether its group has lost a pool.
    fn is_halved(&self) -> bool {
        use PlacementReason::{DecodePoolEmpty, DecodePoolExcluded, PrefillPoolEmpty};
        matches!(self.reason, DecodePoolEmpty | DecodePoolExcluded | PrefillPoolEmpty)
    }

    /// Who computes the prompt.
    fn computes(&self) -> &Offer<'_> {
        self.prefill.first().unwrap_or(&self.decode)
    }

    fn terms(&self) -> Terms {
        self.prefill.first().map_or(self.decode.terms, |prefill| prefill.terms + self.decode.terms)
    }
}
