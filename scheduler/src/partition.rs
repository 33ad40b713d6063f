//! How a prefill and a decode engine share one GPU.
//!
//! A split gives some of the multiprocessors to decode and the others to prefill. Decoding is bound
//! by memory, and a few multiprocessors draw much of its bandwidth; prefill is bound by arithmetic and
//! takes what it gets. So a small part is enough for decode, most of the time, and how small it may
//! be is measured: the smallest whose steps meet the target.

use std::time::{Duration, Instant};

use crate::Role;

/// How long after its latest step decode still counts as at work: two slow steps. Between two of them
/// it is idle for a moment, and a prefill step that took that moment for the end of all decoding
/// would be in the way of some ten steps to come.
const DECODE_LINGERS: Duration = Duration::from_millis(30);

/// Prompt tokens of a step from which on prompts are waiting: at the rate of one such step, a prompt
/// that comes now waits longer for its turn than it takes itself.
const QUEUE_TOKENS: u64 = 4096;

/// Decode gives multiprocessors away where its steps would take at most this share of the target
/// afterwards. The rest is for what the estimate doesn't know.
const SHRINK_BELOW: f64 = 0.85;

/// Where a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// On all multiprocessors.
    Whole,
    /// On those that the split gives this engine.
    Part,
}

/// What is known of an engine's work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// The GPU isn't done with its latest step.
    pub in_flight: bool,
    /// How long ago it submitted that; `None` if there never was one.
    pub submitted_ago: Option<Duration>,
    /// Some sequences have their next token from it.
    pub gives_tokens: bool,
}

/// What to reach, and how fast to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionTargets {
    /// Longest time between two tokens of a sequence, in the mean.
    pub itl: Duration,
    /// Shortest time between two changes: long enough to have measured what the last one did.
    pub hold: Duration,
}

/// What both engines measured last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PartitionLoad {
    /// A decode step in its part, as split now; `None` before it was measured.
    pub decode_step: Option<Duration>,
    /// Prompt tokens of the prefill step under way: what had come while the one before ran.
    pub prompt_tokens: u64,
}

/// Chooses among some splits.
#[derive(Clone, Debug)]
pub struct Partitioner {
    /// Decode's multiprocessors in each, ascending.
    splits: Vec<u32>,
    at: usize,
    targets: PartitionTargets,
    changed: Option<Instant>,
    changes: u64,
}

// === impl Room ===

impl Room {
    /// Where an engine's next step runs.
    ///
    /// Decode decides for some 10 ms and looks at this moment alone. Prefill decides for some 100 ms: it
    /// also keeps to its part where decode is about to begin, with sequences that get their first
    /// token from the prefill step under way.
    #[must_use]
    pub fn of(role: Role, own: &Activity, other: &Activity) -> Self {
        let is_shared = match role {
            Role::Decode => other.in_flight,
            Role::Prefill => {
                let lingers = other.submitted_ago.is_some_and(|ago| ago <= DECODE_LINGERS);
                other.in_flight || lingers || own.in_flight && own.gives_tokens
            }
        };
        if is_shared { Self::Part } else { Self::Whole }
    }
}

// === impl PartitionTargets ===

impl Default for PartitionTargets {
    fn default() -> Self {
        Self { itl: Duration::from_millis(15), hold: Duration::from_millis(300) }
    }
}

// === impl Partitioner ===

impl Partitioner {
    /// Begins with one of the splits.
    ///
    /// - `splits`: decode's multiprocessors in each, ascending.
    /// - `first`: which one to begin with.
    ///
    /// # Panics
    /// If there is no such split, or they aren't in order.
    #[must_use]
    pub fn new(splits: Vec<u32>, first: usize, targets: PartitionTargets) -> Self {
        assert!(first < splits.len(), "split {first} of {}", splits.len());
        assert!(splits.is_sorted_by(|a, b| a < b), "splits are in order: {splits:?}");
        Self { splits, at: first, targets, changed: None, changes: 0 }
    }

    /// Which split it is.
    #[must_use]
    pub fn split(&self) -> usize {
        self.at
    }

    /// Decode's multiprocessors.
    #[must_use]
    pub fn decode_multiprocessors(&self) -> u32 {
        self.splits[self.at]
    }

    /// How often it has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Looks at the load; says whether the split has changed.
    ///
    /// Decode grows where its steps miss the target, and shrinks where prompts wait and its steps
    /// would meet the target even if they slowed down as much as it shrinks.
    pub fn decide(&mut self, load: &PartitionLoad, now: Instant) -> bool {
        let held = self.changed.is_some_and(|at| now.saturating_duration_since(at) < self.targets.hold);
        let Some(step) = load.decode_step.filter(|_| !held) else { return false };
        let to = if step > self.targets.itl {
            (self.at + 1).min(self.splits.len() - 1)
        } else if load.prompt_tokens >= QUEUE_TOKENS && self.fits_below(step) {
            self.at - 1
        } else {
            self.at
        };
        let changes = to != self.at;
        if changes {
            self.at = to;
            self.changed = Some(now);
            self.changes += 1;
        }
        changes
    }

    fn fits_below(&self, step: Duration) -> bool {
        let Some(below) = self.at.checked_sub(1) else { return false };
        let slower = f64::from(self.splits[self.at]) / f64::from(self.splits[below]);
        step.mul_f64(slower) <= self.targets.itl.mul_f64(SHRINK_BELOW)
    }
}

#[cfg(test)]
mod tests;
