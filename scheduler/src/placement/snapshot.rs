//! The cluster as a router sees it at one moment.

use std::ops::{AddAssign, SubAssign};
use std::sync::Arc;
use std::time::Instant;

use words::{Incarnation, Load, Role, WorkerInfo};

use crate::cost::Rates;

/// All workers known at one moment.
#[derive(Clone, Debug, Default)]
pub struct ClusterSnapshot {
    /// In an order that doesn't change while the workers don't: turns are taken by it.
    pub workers: Vec<WorkerView>,
}

/// One worker: what it says about itself, and what is known besides.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// What it published.
    pub info: Arc<WorkerInfo>,
    /// Its last report; `None` before the first of this life.
    pub load: Option<Load>,
    /// When that report came.
    pub reported_at: Option<Instant>,
    /// Whether it answers, whatever etcd says.
    pub healthy: bool,
    /// What this router placed there and the report can't show yet.
    pub assigned: Assigned,
    /// How fast it is.
    pub rates: Rates,
    /// What it is thought to have of the prompt that is to be placed.
    pub cached: CachedTokens,
}

/// A prompt's leading tokens whose KV a worker has, by the slowest tier that they take.
///
/// An estimate, by what the worker told: it may have evicted some since, and computes what it lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedTokens {
    /// On the device alone.
    pub device: u32,
    /// With what the host's memory has; not fewer.
    pub host: u32,
    /// With what the disk has; not fewer.
    pub disk: u32,
}

/// Work placed on a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Prompt tokens to compute.
    pub prefill_tokens: u64,
    /// Sequences.
    pub sequences: u32,
    /// Of them, those that are generated there.
    pub generating: u32,
    /// KV blocks they will need.
    pub blocks: u32,
}

// === impl WorkerView ===

impl WorkerView {
    /// A worker that has not reported yet.
    #[must_use]
    pub fn new(info: Arc<WorkerInfo>) -> Self {
        Self {
            info,
            load: None,
            reported_at: None,
            healthy: true,
            assigned: Assigned::default(),
            rates: Rates::default(),
            cached: CachedTokens::default(),
        }
    }

    /// Takes a report in; one that is older than the last is ignored.
    ///
    /// - `incarnation`: the life that sent it. A report of another life than the one published is
    ///   ignored too.
    pub fn observe(&mut self, incarnation: Incarnation, load: Load, now: Instant) {
        let is_old = self.load.as_ref().is_some_and(|last| load.sequence <= last.sequence);
        if is_old || incarnation != self.info.address.incarnation {
            return;
        }
        if let (Some(last), Some(at)) = (&self.load, self.reported_at) {
            let tokens = load.prefill_tokens.saturating_sub(last.prefill_tokens);
            self.rates.observe_prompts(tokens, now.saturating_duration_since(at).as_secs_f64());
        }
        self.rates.observe(&self.steps_of(&load));
        self.load = Some(load);
        self.reported_at = Some(now);
    }

    /// The report as its decode steps are to be read: on a prefill worker most of what runs is prompts.
    fn steps_of(&self, load: &Load) -> Load {
        let running = match self.info.role {
            Role::Prefill => load.running.min(load.generating),
            Role::Decode => load.running,
        };
        Load { running, ..load.clone() }
    }

    /// Takes changed information in; a new life starts without reports and with unknown speed.
    pub fn update(&mut self, info: Arc<WorkerInfo>) {
        if info.address.incarnation == self.info.address.incarnation {
            self.info = info;
        } else {
            *self = Self::new(info);
        }
    }
}

// === impl CachedTokens ===

impl CachedTokens {
    /// Notes that so many leading tokens are, or will be, on the device.
    pub fn raise(&mut self, tokens: u32) {
        self.device = self.device.max(tokens);
        self.host = self.host.max(tokens);
        self.disk = self.disk.max(tokens);
    }
}

// === impl Assigned ===

impl AddAssign for Assigned {
    fn add_assign(&mut self, more: Self) {
        self.prefill_tokens += more.prefill_tokens;
        self.sequences += more.sequences;
        self.generating += more.generating;
        self.blocks += more.blocks;
    }
}

impl SubAssign for Assigned {
    fn sub_assign(&mut self, less: Self) {
        self.prefill_tokens -= less.prefill_tokens;
        self.sequences -= less.sequences;
        self.generating -= less.generating;
        self.blocks -= less.blocks;
    }
}
