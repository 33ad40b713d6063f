//! By which rule workers are chosen.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use scheduler::placement::Refusal;
use scheduler::{
    ClusterSnapshot, HandoffPolicy, LeastLoad, Placement, PlacementRequest, Placer, SloTargets,
    WorkerView,
};
use words::Role;

use crate::simulate::Seeds;

/// The rules that are laid side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Baton's own.
    Ours,
    /// Anyone.
    Random,
    /// One after the other.
    RoundRobin,
    /// Whoever has the fewest requests.
    LeastLoaded,
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

/// Chooses one of several workers that could do a part of a request.
pub(super) trait Rule {
    fn choose(&mut self, among: &[&WorkerView], sight: &Sight<'_>) -> usize;
}

struct Random(ChaCha8Rng);

/// One for each part, as turns are taken apart.
struct RoundRobin {
    prefill: usize,
    decode: usize,
}

struct LeastLoaded;

// === impl Policy ===

impl Policy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Random, Self::RoundRobin, Self::LeastLoaded];

    /// Its name, as it is given and shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
        }
    }

    /// A chooser for router `number`.
    pub(super) fn chooser(self, targets: SloTargets, seeds: Seeds, number: usize) -> Chooser {
        let rule: Box<dyn Rule> = match self {
            Self::Ours => {
                return Chooser::Ours(LeastLoad { handoff: HandoffPolicy::Auto, targets });
            }
            Self::Random => Box::new(Random(seeds.router(number))),
            Self::RoundRobin => Box::new(RoundRobin { prefill: number, decode: number }),
            Self::LeastLoaded => Box::new(LeastLoaded),
        };
        Chooser::Rule(rule, targets)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|policy| policy.name() == text);
        let names = Self::ALL.map(Self::name).join(", ");
        known.ok_or_else(|| format!("there is no policy {text:?}: want one of {names}"))
    }
}

// === impl Chooser ===

impl Chooser {
    pub(super) fn place(&mut self, sight: &Sight<'_>) -> Result<Placement, Refusal> {
        match self {
            Self::Ours(placer) => placer.place(sight.view, sight.request, sight.now),
            Self::Rule(rule, targets) => {
                let chosen = chosen(rule.as_mut(), sight);
                let of_two = chosen.len() > 1;
                let view = ClusterSnapshot { workers: chosen.into_iter().cloned().collect() };
                let handoff = if of_two { HandoffPolicy::Always } else { HandoffPolicy::Never };
                LeastLoad { handoff, targets: *targets }.place(&view, sight.request, sight.now)
            }
        }
    }
}

/// A worker for each part: where there are prefill workers, one of them computes every prompt.
fn chosen<'a>(rule: &mut dyn Rule, sight: &Sight<'a>) -> Vec<&'a WorkerView> {
    let mut chosen = Vec::with_capacity(2);
    for role in [Role::Prefill, Role::Decode] {
        let of_role = sight.view.workers.iter().filter(|it| it.info.role == role);
        let among: Vec<&WorkerView> = of_role.collect();
        if !among.is_empty() {
            chosen.push(among[rule.choose(&among, sight)]);
        }
    }
    chosen
}

// === impl Rule ===

impl Rule for Random {
    fn choose(&mut self, among: &[&WorkerView], _: &Sight<'_>) -> usize {
        self.0.random_range(0..among.len())
    }
}

impl Rule for RoundRobin {
    fn choose(&mut self, among: &[&WorkerView], _: &Sight<'_>) -> usize {
        let turn = match among[0].info.role {
            Role::Prefill => &mut self.prefill,
            Role::Decode => &mut self.decode,
        };
        *turn += 1;
        *turn % among.len()
    }
}

impl Rule for LeastLoaded {
    fn choose(&mut self, among: &[&WorkerView], _: &Sight<'_>) -> usize {
        let all = among.iter().enumerate();
        all.min_by_key(|(_, worker)| requests(worker)).map_or(0, |(at, _)| at)
    }
}

/// Requests that a worker has, and those on their way to it.
pub(super) fn requests(worker: &WorkerView) -> u32 {
    let reported = worker.load.as_ref().map_or(0, |load| load.running + load.waiting);
    reported + worker.assigned.sequences
}
