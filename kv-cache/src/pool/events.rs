//! What became findable and what stopped being so: a pool's news for the cluster's prefix index.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{BlockHash, Tier};

/// Events kept for the next report, about 1 MiB.
///
/// At 50,000 prompt tokens a second a full cache commits and evicts some 6,000 blocks a second, and
/// reports leave at least once a second.
pub(super) const EVENTS_MAX: usize = 16_384;

/// One change of what [`crate::BlockPool::match_prefix`] can find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEvent {
    /// A block can be found.
    Committed {
        /// Which.
        block: CommittedBlock,
        /// Where.
        tier: Tier,
    },
    /// A block can't be found there any more.
    Evicted {
        /// Its name.
        hash: BlockHash,
        /// Where it was.
        tier: Tier,
    },
}

/// A block that can be found, and where it hangs in the tree of prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedBlock {
    /// Its name.
    pub hash: BlockHash,
    /// The name of the block before it; `None` for a sequence's first.
    pub parent: Option<BlockHash>,
    /// Blocks of the sequence before it.
    pub depth: u32,
}

/// The events since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockEvents {
    /// In the order they happened.
    pub events: Vec<BlockEvent>,
    /// Nobody followed, or too much was missed: only [`crate::BlockPool::snapshot`] tells the truth.
    pub needs_snapshot: bool,
}

/// All that can be found at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What had happened since the last look: for those that follow already.
    pub before: BlockEvents,
    /// Every block and where it can be found, in no particular order.
    pub blocks: Vec<(CommittedBlock, Tier)>,
}

/// A bounded queue of events that would rather forget everything than lie about a part; none while nobody follows.
#[derive(Default)]
pub(super) struct EventLog(Option<VecDeque<BlockEvent>>);

/// The log of a pool and of the tiers below it. Taken under a pool's lock, and last.
pub(super) type SharedLog = Arc<Mutex<EventLog>>;

// === impl BlockEvent ===

impl BlockEvent {
    /// The name of the block it is about.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        match self {
            Self::Committed { block, .. } => block.hash,
            Self::Evicted { hash, .. } => *hash,
        }
    }
}

// === impl EventLog ===

impl EventLog {
    pub(super) fn push(&mut self, event: BlockEvent) {
        let Self(Some(events)) = self else { return };
        if events.len() == EVENTS_MAX {
            self.0 = None;
            return;
        }
        events.push_back(event);
    }

    /// Takes up to `max` events.
    pub(super) fn drain(&mut self, max: usize) -> BlockEvents {
        let Self(Some(events)) = self else {
            return BlockEvents { events: Vec::new(), needs_snapshot: true };
        };
        let count = max.min(events.len());
        BlockEvents { events: events.drain(..count).collect(), needs_snapshot: false }
    }

    /// Starts, or starts anew, for a follower who takes a snapshot under the same lock. Gives what was kept until now.
    pub(super) fn begin(&mut self) -> BlockEvents {
        let before = self.drain(usize::MAX);
        self.0 = Some(VecDeque::new());
        before
    }
}
