//! SGLang's `cache_aware`: requests go where their prefix is, unless some workers have many more than others.

use scheduler::PlacementRequest;

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

// === impl Affinity ===

impl Default for Affinity {
    fn default() -> Self {
        Self { more_than: 64.0, times_more_than: 1.5, share_min: 0.3 }
    }
}

impl Affinity {
    fn is_uneven(&self, among: &[Candidate<'_>]) -> bool {
        let loads = || among.iter().map(Candidate::requests).map(f64::from);
        let (least, most) = (loads().fold(f64::INFINITY, f64::min), loads().fold(0.0, f64::max));
        most - least > self.more_than && most > self.times_more_than * least
    }
}

impl Rule for Affinity {
    /// The shortest queue where they are uneven; else the best prefix, if that is long enough; else the smallest tree.
    fn for_prompt(&mut self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        if self.is_uneven(among) {
            return fewest(among);
        }
        let best = least(among, |it| -f64::from(it.cached_tokens));
        let share = f64::from(among[best].cached_tokens) / f64::from(request.context_tokens.max(1));
        if share > self.share_min {
            return best;
        }
        // What has just been sent there will be in its tree.
        least(among, |it| it.cached_blocks as f64 + f64::from(it.worker.assigned.blocks))
    }
}
