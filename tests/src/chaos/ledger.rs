//! Who was harmed when: what the driver may do next, and what a client must put up with.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::plan::Target;

/// After a fault, a node counts as harmed for so long: others learn late that it is back.
const SETTLE: Duration = Duration::from_secs(2);
/// After all workers of a kind were away, requests may fail for so long.
const AFTERMATH: Duration = Duration::from_secs(5);

/// All faults of a run.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    harms: Mutex<Vec<Harm>>,
}

#[derive(Debug)]
struct Harm {
    target: Target,
    to: Option<Instant>,
    nature: Nature,
}

/// What a fault means to others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nature {
    /// Whether the target's connections end by it.
    pub(super) parts: bool,
    /// Whether it takes all of a kind.
    pub(super) takes_all: bool,
}

// === impl Ledger ===

impl Ledger {
    /// Notes that a fault begins, unless the target or its like is harmed as it is: but for faults that take all,
    /// one of each kind is always well.
    pub(super) fn begin(&self, target: Target, nature: Nature) -> bool {
        let mut harms = self.harms.lock();
        let is_harmed = harms.iter().any(|harm| {
            [target, target.other()].contains(&harm.target)
                && harm.to.is_none_or(|to| to.elapsed() < SETTLE)
        });
        if !is_harmed {
            harms.push(Harm { target, to: None, nature });
        }
        !is_harmed
    }

    /// Notes that what hit the target is over.
    pub(super) fn end(&self, target: Target) {
        let mut harms = self.harms.lock();
        let open = harms.iter_mut().filter(|harm| harm.target == target && harm.to.is_none());
        open.for_each(|harm| harm.to = Some(Instant::now()));
    }

    /// Whether connections to the target were ended by a fault since `from`, or the target was away.
    pub(super) fn has_parted(&self, target: Target, from: Instant) -> bool {
        let is_meant = |harm: &Harm| harm.target == target && harm.nature.parts;
        self.harms.lock().iter().any(|harm| is_meant(harm) && harm.to.is_none_or(|to| to >= from))
    }

    /// Whether all workers of a kind were away since `from`, or a little before.
    pub(super) fn had_none(&self, from: Instant) -> bool {
        let lasts = |to: Option<Instant>| to.is_none_or(|to| to + AFTERMATH >= from);
        self.harms.lock().iter().any(|harm| harm.nature.takes_all && lasts(harm.to))
    }
}
