//! SGLang's `cache_aware`: requests go where their prefix is, unless some workers have many more than others.

use std::collections::HashMap;

use scheduler::PlacementRequest;
use words::WorkerId;

use super::load::fewest;
use super::{Candidate, Rule, least};

/// Its thresholds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affinity {
    /// Loads are uneven where the greatest is above the least by more requests than these..
    pub more_than: f64,
    /// ..and more than this many times the least.
    pub times_more_than: f64,
    /// The part of a prompt that a worker has to have, to be chosen for it.
    pub share_min: f64,
}

/// The rule, and the tree that it keeps of each worker: as large as all that was new in what was sent there.
pub(super) struct CacheAware {
    affinity: Affinity,
    tree_tokens: HashMap<WorkerId, u64>,
}

// === impl Affinity ===

impl Default for Affinity {
    fn default() -> Self {
        Self { more_than: 64.0, times_more_than: 1.5, share_min: 0.3 }
    }
}

// === impl CacheAware ===

impl CacheAware {
    pub(super) fn new(affinity: Affinity) -> Self {
        Self { affinity, tree_tokens: HashMap::new() }
    }

    /// The shortest queue where they are uneven; else the best prefix, if that is long enough; else the smallest tree.
    fn choose(&self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        if self.is_uneven(among) {
            return fewest(among);
        }
        let best = least(among, |it| -f64::from(it.cached_tokens()));
        let share =
            f64::from(among[best].cached_tokens()) / f64::from(request.context_tokens.max(1));
        if share > self.affinity.share_min {
            return best;
        }
        least(among, |it| self.tree_tokens.get(it.name()).map_or(0.0, |tokens| *tokens as f64))
    }

    fn is_uneven(&self, among: &[Candidate<'_>]) -> bool {
        let loads = || among.iter().map(Candidate::requests).map(f64::from);
        let (least, most) = (loads().fold(f64::INFINITY, f64::min), loads().fold(0.0, f64::max));
        let Affinity { more_than, times_more_than, .. } = self.affinity;
        most - least > more_than && most > times_more_than * least
    }
}

impl Rule for CacheAware {
    fn for_prompt(&mut self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        let chosen = self.choose(among, request);
        let tree = self.tree_tokens.entry(among[chosen].name().clone()).or_default();
        *tree += u64::from(among[chosen].uncached_tokens(request));
        chosen
    }
}
