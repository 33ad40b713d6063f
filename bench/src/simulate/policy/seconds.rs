//! Mooncake's Algorithm 1: for every worker that could compute the prompt the time to the first token, and the least of them.
//!
//! Of its two ways to a prefix, the worker's own and another's that is sent, there is the first: no worker here fetches
//! blocks from another. Who would miss the target is refused by the router, as for every rule.

use scheduler::PlacementRequest;
use scheduler::cost::prior::PREFILL_TOKENS_PER_S;

use super::{Candidate, Rule, least};

pub(super) struct LeastSeconds;

impl Rule for LeastSeconds {
    fn for_prompt(&mut self, among: &[Candidate<'_>], request: &PlacementRequest<'_>) -> usize {
        least(among, |it| {
            let measured = it.worker.load.as_ref().map_or(0.0, |load| load.prefill_tokens_per_s);
            let rate = if measured > 0.0 { measured } else { PREFILL_TOKENS_PER_S };
            (it.queued_tokens() + u64::from(it.uncached_tokens(request))) as f64 / rate
        })
    }
}
