//! Rules that know nothing of prefixes.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use scheduler::PlacementRequest;

use super::{Candidate, Rule, least};

pub(super) struct Random(pub(super) ChaCha8Rng);

/// One for each part, as turns are taken apart.
pub(super) struct RoundRobin {
    prompts: usize,
    answers: usize,
}

pub(super) struct LeastLoaded;

/// Whoever has the fewest requests.
pub(super) fn fewest(among: &[Candidate<'_>]) -> usize {
    least(among, |it| it.requests().into())
}

// === impl RoundRobin ===

impl RoundRobin {
    /// Routers that began with the same worker would go round together.
    pub(super) fn from(first: usize) -> Self {
        Self { prompts: first, answers: first }
    }
}

// === impl Rule ===

impl Rule for Random {
    fn for_prompt(&mut self, among: &[Candidate<'_>], _: &PlacementRequest<'_>) -> usize {
        self.0.random_range(0..among.len())
    }

    fn for_answer(&mut self, among: &[Candidate<'_>], _: &PlacementRequest<'_>) -> usize {
        self.0.random_range(0..among.len())
    }
}

impl Rule for RoundRobin {
    fn for_prompt(&mut self, among: &[Candidate<'_>], _: &PlacementRequest<'_>) -> usize {
        self.prompts += 1;
        (self.prompts - 1) % among.len()
    }

    fn for_answer(&mut self, among: &[Candidate<'_>], _: &PlacementRequest<'_>) -> usize {
        self.answers += 1;
        (self.answers - 1) % among.len()
    }
}

impl Rule for LeastLoaded {
    fn for_prompt(&mut self, among: &[Candidate<'_>], _: &PlacementRequest<'_>) -> usize {
        fewest(among)
    }
}
