//! What will happen, and when: the simulator's clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::house::Happening;

/// Happenings in order of time; those of one time in the order in which they were planned.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    planned: BinaryHeap<Reverse<Entry>>,
    number: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Duration,
    number: u64,
    what: Happening,
}

// === impl Agenda ===

impl Agenda {
    pub(super) fn plan(&mut self, at: Duration, what: Happening) {
        self.number += 1;
        self.planned.push(Reverse(Entry { at, number: self.number, what }));
    }

    /// What is next, and its time, which is the time then.
    pub(super) fn next(&mut self) -> Option<(Duration, Happening)> {
        self.planned.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}
