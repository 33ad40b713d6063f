//! How a prefill and a decode engine share one GPU.
//!
//! A split gives some of the multiprocessors to decode and the others to prefill. Decode reads much and
//! computes little, and how slow it gets in a small part is measured; prefill computes, and is as fast
//! as its part is large. So decode has the smallest part in which its steps meet a target, but never so
//! much that prefill couldn't keep up, and less still while prompts wait for long: a queue that grows
//! costs more than slow tokens do. `tests::served` is the rule in a simulation with measured times.

use std::time::{Duration, Instant};

use words::Role;

/// How long after its latest step decode still counts as at work: two slow steps. Between two of them
/// it is idle for a moment, and a prefill step that took that moment for the end of all decoding
/// would be in the way of some ten steps to come.
const DECODE_LINGERS: Duration = Duration::from_millis(30);

/// Work that waits for prefill from which on decode gives way, whatever its steps take: eighteen prompts
/// of 1,024 tokens of an 8B model in three quarters of an H100. Where prefill is at work for three
/// quarters of the time, chance alone makes a queue of half of that now and then, and giving way to it
/// costs more slow tokens than it saves waiting (500 ms: 25.8 rather than 21.5 ms, 105 and 103 ms).
const QUEUE_LONG: Duration = Duration::from_millis(700);

/// Work up to which decode may take from prefill.
const QUEUE_SHORT: Duration = Duration::from_millis(150);

/// Decode takes multiprocessors from prefill where prefill would be at work for at most this share of the
/// time afterwards. Beyond, its queue is what requests wait for.
const PREFILL_BUSY_MAX: f64 = 0.75;

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
pub struct EngineActivity {
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
    /// Prompts not yet computed, at the rate of lately.
    pub prefill_wait: Duration,
    /// Share of the time, lately, in which prefill was at work: `0.0..=1.0`.
    pub prefill_busy: f64,
}

/// Chooses among some splits.
#[derive(Clone, Debug)]
pub struct Partitioner {
    /// Decode's multiprocessors in each, ascending.
    splits: Vec<u32>,
    /// Those of both together.
    multiprocessors: u32,
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
    pub fn of(role: Role, own: &EngineActivity, other: &EngineActivity) -> Self {
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
        Self { itl: Duration::from_millis(20), hold: Duration::from_millis(300) }
    }
}

// === impl Partitioner ===

impl Partitioner {
    /// Begins with one of the splits.
    ///
    /// - `splits`: decode's multiprocessors in each, ascending; all less than `multiprocessors`.
    /// - `multiprocessors`: decode's and prefill's together.
    /// - `first`: which split to begin with.
    ///
    /// # Panics
    /// If there is no such split, they aren't in order, or one leaves prefill nothing.
    #[must_use]
    pub fn new(
        splits: Vec<u32>,
        multiprocessors: u32,
        first: usize,
        targets: PartitionTargets,
    ) -> Self {
        assert!(first < splits.len(), "split {first} of {}", splits.len());
        assert!(splits.is_sorted_by(|a, b| a < b), "splits are in order: {splits:?}");
        let largest = splits[splits.len() - 1];
        assert!(largest < multiprocessors, "{largest} of {multiprocessors} leave nothing");
        Self { splits, multiprocessors, at: first, targets, changed: None, changes: 0 }
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
    /// In this order: decode gives way to a long queue of prompts; it shrinks where its steps would meet
    /// the target even if they slowed down as much as it shrinks; it grows where they miss the target,
    /// the queue is short, and prefill keeps up with what is left to it.
    pub fn decide(&mut self, load: &PartitionLoad, now: Instant) -> bool {
        let since = self.changed.map(|at| now.saturating_duration_since(at));
        let held = since.is_some_and(|since| since < self.targets.hold);
        let Some(step) = load.decode_step.filter(|_| !held) else { return false };
        let to = if load.prefill_wait >= QUEUE_LONG {
            self.at.saturating_sub(1)
        } else if step <= self.targets.itl {
            self.smallest(step, self.targets.itl.mul_f64(SHRINK_BELOW)).min(self.at)
        } else if load.prefill_wait <= QUEUE_SHORT {
            self.affordable(self.smallest(step, self.targets.itl), load.prefill_busy)
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

    /// The largest split, from the present one up to `wanted`, that leaves prefill enough.
    fn affordable(&self, wanted: usize, busy: f64) -> usize {
        let prefills = |at: usize| f64::from(self.multiprocessors - self.splits[at]);
        let is_enough = |to: usize| busy * prefills(self.at) / prefills(to) <= PREFILL_BUSY_MAX;
        (self.at..=wanted).rev().find(|&to| is_enough(to)).unwrap_or(self.at)
    }

    /// The smallest split whose steps would take at most `limit` if they were as fast as their part is
    /// large; the largest if there is none.
    fn smallest(&self, step: Duration, limit: Duration) -> usize {
        let present = f64::from(self.splits[self.at]);
        let fits = |&split: &u32| step.mul_f64(present / f64::from(split)) <= limit;
        self.splits.iter().position(fits).unwrap_or(self.splits.len() - 1)
    }
}

#[cfg(test)]
mod tests;
