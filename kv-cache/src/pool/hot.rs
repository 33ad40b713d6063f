//! Which prefixes of a pool are found again and again.

use std::cmp::Reverse;

use super::BlockPool;
use crate::Anchor;

// === impl BlockPool ===

impl BlockPool {
    /// Anchors of prefixes that were found since they were committed, in this tier: the most often found first, and none before
    /// one that it continues.
    ///
    /// In time linear in the blocks, a millisecond for 100,000: for now and then.
    ///
    /// - `max`: as many at most.
    #[must_use]
    pub fn hot_anchors(&self, max: usize) -> Vec<Anchor> {
        let mut hot = self.lock().found_anchors();
        // A prefix is found whenever one that continues it is, so that is never before it.
        hot.sort_unstable_by_key(|(anchor, found)| (Reverse(*found), *anchor));
        hot.into_iter().map(|(anchor, _)| anchor).take(max).collect()
    }
}
