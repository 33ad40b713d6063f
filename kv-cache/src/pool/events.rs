//! What became findable and what stopped being so: a pool's news for the cluster's prefix index.

use std::collections::VecDeque;

use crate::BlockHash;

/// Events kept for the next report, about 1 MiB.
///
/// At 50,000 prompt tokens a second a full cache commits and evicts some 6,000 blocks a second, and
/// reports leave at least once a second.
pub(super) const EVENTS_MAX: usize = 16_384;

/// One change of what [`crate::BlockPool::match_prefix`] can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEvent {
    /// A block can be found.
    Committed(CommittedBlock),
    /// A block can't be found any more.
    Evicted {
        /// Its name.
        hash: BlockHash,
    },
}

/// A block that can be found, and where it hangs in the tree of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedBlock {
    /// Its name.
    pub hash: BlockHash,
    /// The name of the block before it; `None` for a sequence's first.
    pub parent: Option<BlockHash>,
}

/// The events since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockEvents {
    /// In the order they happened.
    pub events: Vec<BlockEvent>,
    /// Events were lost before these: only [`crate::BlockPool::snapshot`] tells the truth again.
    pub overflowed: bool,
}

/// A bounded queue of events that would rather forget everything than lie about a part.
#[derive(Default)]
pub(super) struct EventLog {
    events: VecDeque<BlockEvent>,
    overflowed: bool,
}

// === impl EventLog ===

impl EventLog {
    pub(super) fn push(&mut self, event: BlockEvent) {
        if self.overflowed {
            return;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.clear();
            self.overflowed = true;
            return;
        }
        self.events.push_back(event);
    }

    /// Takes up to `max` events. The overflow flag stays up until [`EventLog::reset`].
    pub(super) fn drain(&mut self, max: usize) -> BlockEvents {
        let count = max.min(self.events.len());
        BlockEvents { events: self.events.drain(..count).collect(), overflowed: self.overflowed }
    }

    /// Starts anew, for a reader who takes a snapshot under the same lock.
    pub(super) fn reset(&mut self) {
        self.events.clear();
        self.overflowed = false;
    }
}
