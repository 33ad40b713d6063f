//! By which rule workers are chosen.
//!
//! Others' rules are written here from what was published of them, in Baton's words: a worker is seen by its reports, by what
//! was sent there since, and by what it has of the prompt. Where theirs are of blocks, 16 tokens are one.

mod affinity;
mod load;
mod named;
mod scores;
mod seconds;

use std::time::Instant;

use scheduler::placement::Refusal;
use scheduler::{
    ClusterSnapshot, HandoffPolicy, LeastLoad, Placement, PlacementRequest, Placer, SloTargets,
    WorkerView,
};
use words::{Role, WorkerId};

use self::affinity::{Affinity, CacheAware};
use self::load::{LeastLoaded, Random, RoundRobin};
use self::scores::{BlockCost, Weighted};
use self::seconds::LeastSeconds;
use super::Seeds;

/// The rules that are laid side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// Baton's own.
    Ours,
    /// Anyone.
    Random,
    /// One after the other.
    RoundRobin,
    /// Whoever has the fewest requests.
    LeastLoaded,
    /// SGLang's `cache_aware`: the best prefix, unless loads are uneven.
    Sglang(Affinity),
    /// Dynamo's: blocks to compute and blocks that are read, added up.
    Dynamo(BlockCost),
    /// Mooncake's Algorithm 1: the least time to the first token.
    Mooncake,
    /// llm-d's: a weighted sum of scores.
    LlmD(Weighted),
}

/// A worker that could do a part of a request.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'a> {
    pub(super) worker: &'a WorkerView,
}

/// What a router sees when it places a request.
pub(super) struct Sight<'a> {
    pub(super) view: &'a ClusterSnapshot,
    pub(super) request: &'a PlacementRequest<'a>,
    pub(super) now: Instant,
}

/// Chooses workers for one router.
pub(super) enum Chooser {
    /// Baton's own placement, as it is.
    Ours(LeastLoad),
    /// A rule for each part of a request, and our forecast for those that it chose: so all are held to the same targets.
    Rule(Box<dyn Rule>, SloTargets),
}

/// Chooses one of several workers that could do a part of a request; all of them are of one role.
pub(super) trait Rule {
    /// The worker that computes the prompt: a prefill worker, or where there is none, whoever generates as well.
    fn for_prompt(&mut self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize;

    /// The worker that generates what is computed elsewhere.
    fn for_answer(&mut self, among: &[Candidate<'_>], _: &PlacementRequest<'_>) -> usize {
        load::fewest(among)
    }

    /// Whether the prompt is computed elsewhere, if there are workers for that.
    fn hands_over(&self, _decode: Candidate<'_>, _: &PlacementRequest<'_>) -> bool {
        true
    }
}

// === impl Policy ===

impl Policy {
    /// A chooser for router `number`.
    pub(super) fn chooser(self, targets: SloTargets, seeds: Seeds, number: usize) -> Chooser {
        let rule: Box<dyn Rule> = match self {
            Self::Ours => {
                return Chooser::Ours(LeastLoad { handoff: HandoffPolicy::Auto, targets });
            }
            Self::Random => Box::new(Random(seeds.router(number))),
            Self::RoundRobin => Box::new(RoundRobin::from(number)),
            Self::LeastLoaded => Box::new(LeastLoaded),
            Self::Sglang(affinity) => Box::new(CacheAware::new(affinity)),
            Self::Dynamo(cost) => Box::new(cost),
            Self::Mooncake => Box::new(LeastSeconds),
            Self::LlmD(weighted) => Box::new(weighted),
        };
        Chooser::Rule(rule, targets)
    }
}

// === impl Chooser ===

impl Chooser {
    pub(super) fn place(&mut self, sight: &Sight<'_>) -> Result<Placement, Refusal> {
        match self {
            Self::Ours(placer) => placer.place(sight.view, sight.request, sight.now),
            Self::Rule(rule, targets) => {
                let chosen = sight.chosen(rule.as_mut());
                let handoff =
                    if chosen.len() > 1 { HandoffPolicy::Always } else { HandoffPolicy::Never };
                let view = ClusterSnapshot { workers: chosen.into_iter().cloned().collect() };
                LeastLoad { handoff, targets: *targets }.place(&view, sight.request, sight.now)
            }
        }
    }
}

// === impl Sight ===

impl<'a> Sight<'a> {
    /// One worker for both parts, or one for each.
    fn chosen(&self, rule: &mut dyn Rule) -> Vec<&'a WorkerView> {
        let (prefill, decode) = (self.of(Role::Prefill), self.of(Role::Decode));
        if prefill.is_empty() {
            return vec![decode[rule.for_prompt(&decode, self.request)].worker];
        }
        let generates = decode[rule.for_answer(&decode, self.request)];
        if !rule.hands_over(generates, self.request) {
            return vec![generates.worker];
        }
        vec![prefill[rule.for_prompt(&prefill, self.request)].worker, generates.worker]
    }

    fn of(&self, role: Role) -> Vec<Candidate<'a>> {
        let of_role = self.view.workers.iter().filter(|worker| worker.info.role == role);
        of_role.map(|worker| Candidate { worker }).collect()
    }
}

// === impl Candidate ===

impl Candidate<'_> {
    fn name(&self) -> &WorkerId {
        &self.worker.info.address.worker
    }

    /// Requests that the worker has, and those on their way to it.
    fn requests(&self) -> u32 {
        let reported = self.worker.load.as_ref().map_or(0, |load| load.running + load.waiting);
        reported + self.worker.assigned.sequences
    }

    /// Prompt tokens that it has still to compute.
    fn queued_tokens(&self) -> u64 {
        let reported = self.worker.load.as_ref().map_or(0, |load| load.queued_prefill_tokens);
        reported + self.worker.assigned.prefill_tokens
    }

    /// Token slots of the blocks that are in use there, or will be.
    fn active_tokens(&self) -> u64 {
        let load = self.worker.load.as_ref();
        let used = load.map_or(0, |load| load.total_blocks - load.free_blocks);
        let blocks = u64::from(used) + u64::from(self.worker.assigned.blocks);
        blocks * u64::from(self.worker.info.capacity.block_tokens)
    }

    /// Leading tokens of the prompt that it has.
    fn cached_tokens(&self) -> u32 {
        self.worker.cached.device
    }

    /// Tokens of the prompt that it would compute.
    fn uncached_tokens(&self, request: &PlacementRequest<'_>) -> u32 {
        request.context_tokens.saturating_sub(self.cached_tokens())
    }
}

/// The one with the least of something; of several the first.
fn least(among: &[Candidate<'_>], of: impl Fn(&Candidate<'_>) -> f64) -> usize {
    let all = among.iter().map(of).enumerate();
    all.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(at, _)| at)
}
