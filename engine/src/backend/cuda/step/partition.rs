//! A prefill and a decode engine of one process on one GPU.
//!
//! While both are at work, each has some of the multiprocessors for itself; while one of them is
//! idle, the other has all. Which ones follows from [`scheduler::Partitioner`]; here are the parts
//! and what the engines know of each other. Both engines' steps stay on the primary context's memory
//! and kernels: all that differs is the stream.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use scheduler::{EngineActivity, PartitionLoad, PartitionTargets, Partitioner, Room};
use words::Role;

use crate::backend::cuda::driver::device::{Device, Event, Priority, Stream};
use crate::backend::cuda::driver::green::GreenContext;
use crate::error::EngineError;

/// Decode's part in each of the automatic splits, sixteenths of the GPU. Past a half, prefill would
/// be the one that is squeezed.
const AUTO_SIXTEENTHS: [u32; 4] = [3, 4, 6, 8];
/// The one to begin with: a quarter.
const AUTO_FIRST: usize = 1;

/// Steps after a change until their mean counts, and how much the newest one makes of it.
const STEPS_MIN: u32 = 8;
const STEP_SHARE: f64 = 0.1;

/// How much one look at prefill makes of how busy it is: some 200 steps of decode, a few seconds.
const LOOK_SHARE: f64 = 0.005;

/// How to divide the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmSplit {
    /// As the load wants it; not at all where the GPU can't be divided.
    #[default]
    Auto,
    /// So many multiprocessors for decode, rounded to what the GPU can do.
    Decode(u32),
    /// Not at all: both run everywhere, equally urgent.
    Off,
}

/// One GPU's multiprocessors. Each of the two engines is given a seat of it. A clone is the same one.
#[derive(Clone, Debug)]
pub struct SmPartition {
    division: Arc<Division>,
}

/// One engine's place in a partition.
#[derive(Clone, Debug)]
pub struct PartitionSeat {
    division: Arc<Division>,
    role: Role,
}

#[derive(Debug)]
struct Division {
    wanted: SmSplit,
    targets: PartitionTargets,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Made by the first engine that takes its seat; empty where the GPU isn't divided.
    splits: Option<Vec<Split>>,
    partitioner: Option<Partitioner>,
    /// Seconds of a decode step in its part, as split now.
    decode_step: Mean,
    /// Whether prefill was at work when decode looked.
    prefill_busy: Mean,
    prefill_queue: Option<PrefillQueue>,
    prefill: Latest,
    decode: Latest,
}

/// Tells how long the prompts take that the prefill engine hasn't computed yet.
struct PrefillQueue(Box<dyn Fn() -> Duration + Send>);

/// One way to divide the GPU.
#[derive(Clone, Debug)]
struct Split {
    prefill: Arc<GreenContext>,
    decode: Arc<GreenContext>,
}

/// The mean of recent values.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    value: f64,
    count: u32,
}

/// An engine's latest step.
#[derive(Clone, Debug, Default)]
struct Latest {
    end: Option<(Arc<Event>, Instant)>,
    kind: StepKind,
    /// Steps that ran in its part.
    parted: u64,
}

/// What a step is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StepKind {
    /// Tokens of prompts in it.
    pub(crate) prompt_tokens: u64,
    /// Some sequences have their next token from it.
    pub(crate) gives_tokens: bool,
}

// === impl SmPartition ===

impl SmPartition {
    /// Plans a partition; the first engine that uses it makes it.
    #[must_use]
    pub fn new(wanted: SmSplit, targets: PartitionTargets) -> Self {
        Self { division: Arc::new(Division { wanted, targets, state: Mutex::default() }) }
    }

    /// The place of the engine for `role`. Both engines open the same GPU.
    #[must_use]
    pub fn seat(&self, role: Role) -> PartitionSeat {
        PartitionSeat { division: Arc::clone(&self.division), role }
    }
}

// === impl PartitionSeat ===

impl PartitionSeat {
    /// Which engine's it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The share of the multiprocessors that this engine has while both are at work; `None` before an
    /// engine has started, and where the GPU isn't divided.
    #[must_use]
    pub fn share(&self) -> Option<f64> {
        let state = self.division.state.lock();
        let split = state.splits.as_ref()?.get(state.partitioner.as_ref()?.split())?;
        let of = |role| f64::from(split.part(role).multiprocessors());
        Some(of(self.role) / (of(Role::Prefill) + of(Role::Decode)))
    }

    /// How often the split has changed.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.division.state.lock().partitioner.as_ref().map_or(0, Partitioner::changes)
    }

    /// Steps of this engine that ran in its part.
    #[must_use]
    pub fn parted_steps(&self) -> u64 {
        self.division.state.lock().latest(self.role).parted
    }

    /// Tells the partition how to learn what waits for this engine; only of prefill's it wants to know.
    ///
    /// - `wait`: how long the prompts take that aren't computed yet.
    pub(crate) fn attend(&self, wait: impl Fn() -> Duration + Send + 'static) {
        if self.role == Role::Prefill {
            self.division.state.lock().prefill_queue = Some(PrefillQueue(Box::new(wait)));
        }
    }

    /// How urgent this engine's steps are, where the GPU is divided: on what both run on now and then,
    /// decode's few blocks come first.
    pub(crate) fn priority(&self) -> Priority {
        match self.role {
            Role::Prefill => Priority::Medium,
            Role::Decode => Priority::High,
        }
    }

    /// A stream in this engine's part of each split.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the split that was asked for can't be made.
    pub(crate) fn open(&self, device: &Device) -> Result<Vec<Arc<Stream>>, EngineError> {
        let mut state = self.division.state.lock();
        let splits = match &state.splits {
            Some(splits) => splits.clone(),
            None => self.division.divide(device)?,
        };
        if state.splits.is_none() && !splits.is_empty() {
            let counts = splits.iter().map(|split| split.decode.multiprocessors()).collect();
            let first = AUTO_FIRST.min(splits.len() - 1);
            let targets = self.division.targets;
            let all = splits[0].decode.multiprocessors() + splits[0].prefill.multiprocessors();
            state.partitioner = Some(Partitioner::new(counts, all, first, targets));
        }
        let streams = splits
            .iter()
            .map(|split| Ok(Arc::new(Stream::within(split.part(self.role), self.priority())?)))
            .collect();
        state.splits = Some(splits);
        streams
    }

    /// Which split's part the next step runs in; `None` for the whole GPU.
    ///
    /// # Errors
    /// [`EngineError::Device`] if a step of either engine has failed.
    pub(crate) fn choose(&self, now: Instant) -> Result<Option<usize>, EngineError> {
        let mut state = self.division.state.lock();
        let State {
            partitioner: Some(partitioner),
            decode_step,
            prefill_busy,
            prefill_queue,
            prefill,
            decode,
            ..
        } = &mut *state
        else {
            return Ok(None);
        };
        let (of_prefill, of_decode) = (prefill.activity(now)?, decode.activity(now)?);
        let (own, other) = match self.role {
            Role::Prefill => (of_prefill, of_decode),
            Role::Decode => (of_decode, of_prefill),
        };
        let prefill_wait = prefill_queue.as_ref().map_or(Duration::ZERO, |queue| (queue.0)());
        if self.role == Role::Decode {
            prefill_busy.add(f64::from(u8::from(of_prefill.in_flight)), LOOK_SHARE);
        }
        let load = PartitionLoad {
            decode_step: decode_step.after(STEPS_MIN).map(Duration::from_secs_f64),
            prefill_wait,
            prefill_busy: prefill_busy.value,
        };
        if partitioner.decide(&load, now) {
            let multiprocessors = partitioner.decode_multiprocessors();
            tracing::debug!(multiprocessors, ?load, "decode's part of the GPU has changed");
            *decode_step = Mean::default();
        }
        let split = partitioner.split();
        let is_parted = Room::of(self.role, &own, &other) == Room::Part;
        state.latest(self.role).parted += u64::from(is_parted);
        Ok(is_parted.then_some(split))
    }

    /// Notes that a step was submitted.
    ///
    /// - `end`: recorded behind it.
    pub(crate) fn submitted(&self, end: &Arc<Event>, kind: StepKind, now: Instant) {
        let mut state = self.division.state.lock();
        let latest = state.latest(self.role);
        latest.end = Some((Arc::clone(end), now));
        latest.kind = kind;
    }

    /// Notes how long a step took that ran in a split's part.
    pub(crate) fn measured(&self, split: usize, kind: StepKind, elapsed: Duration) {
        let mut state = self.division.state.lock();
        let is_present = state.partitioner.as_ref().is_some_and(|it| it.split() == split);
        if self.role == Role::Decode && kind.prompt_tokens == 0 && is_present {
            state.decode_step.add(elapsed.as_secs_f64(), STEP_SHARE);
        }
    }
}

impl PartialEq for PartitionSeat {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.division, &other.division) && self.role == other.role
    }
}

// === impl PrefillQueue ===

impl fmt::Debug for PrefillQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PrefillQueue").field(&(self.0)()).finish()
    }
}

// === impl State ===

impl State {
    fn latest(&mut self, role: Role) -> &mut Latest {
        match role {
            Role::Prefill => &mut self.prefill,
            Role::Decode => &mut self.decode,
        }
    }
}

// === impl Division ===

impl Division {
    fn divide(&self, device: &Device) -> Result<Vec<Split>, EngineError> {
        match self.wanted {
            SmSplit::Off => Ok(Vec::new()),
            SmSplit::Decode(multiprocessors) => Ok(vec![Split::new(device, multiprocessors)?]),
            SmSplit::Auto => {
                let all = device.properties().multiprocessors;
                let splits: Result<Vec<_>, _> = AUTO_SIXTEENTHS
                    .iter()
                    .map(|part| Split::new(device, all * part / 16))
                    .collect();
                let mut splits = splits.unwrap_or_else(|why| {
                    tracing::warn!(%why, "prefill and decode share all of the GPU");
                    Vec::new()
                });
                splits.dedup_by_key(|split| split.decode.multiprocessors());
                Ok(splits)
            }
        }
    }
}

// === impl Split ===

impl Split {
    fn new(device: &Device, decode: u32) -> Result<Self, EngineError> {
        let (decode, prefill) = GreenContext::divide(device, decode)?;
        Ok(Self { prefill, decode })
    }

    fn part(&self, role: Role) -> &Arc<GreenContext> {
        match role {
            Role::Prefill => &self.prefill,
            Role::Decode => &self.decode,
        }
    }
}

// === impl Mean ===

impl Mean {
    /// - `share`: of the newest value, once there are some; of the first few it is the plain mean.
    fn add(&mut self, value: f64, share: f64) {
        self.count = self.count.saturating_add(1);
        self.value += share.max(1.0 / f64::from(self.count)) * (value - self.value);
    }

    /// The mean, if it is one of so many values.
    fn after(&self, count: u32) -> Option<f64> {
        (self.count >= count).then_some(self.value)
    }
}

// === impl Latest ===

impl Latest {
    fn activity(&self, now: Instant) -> Result<EngineActivity, EngineError> {
        let Some((end, submitted)) = &self.end else { return Ok(EngineActivity::default()) };
        Ok(EngineActivity {
            in_flight: !end.is_done()?,
            submitted_ago: Some(now.saturating_duration_since(*submitted)),
            gives_tokens: self.kind.gives_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_once_there_are_some() {
        let mut mean = Mean::default();
        (1..STEPS_MIN).for_each(|_| mean.add(10.0, STEP_SHARE));
        assert_eq!(mean.after(STEPS_MIN), None);
        (0..20).for_each(|_| mean.add(20.0, STEP_SHARE));
        let mean = mean.after(STEPS_MIN).unwrap();
        assert!((17.0..20.0).contains(&mean), "{mean}");
    }

    #[test]
    fn nothing_is_divided_before_an_engine_starts() {
        let partition = SmPartition::new(SmSplit::Auto, PartitionTargets::default());
        let (prefill, decode) = (partition.seat(Role::Prefill), partition.seat(Role::Decode));
        assert_eq!(prefill.share(), None);
        assert_eq!(prefill.choose(Instant::now()).unwrap(), None);
        assert_eq!(prefill, partition.clone().seat(Role::Prefill));
        assert_ne!(prefill, decode);
        assert_ne!(prefill.priority(), decode.priority());
    }
}
