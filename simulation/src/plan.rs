//! What a seed stands for: a cluster, its clients, and what goes wrong when.

mod asks;
mod troubles;

use std::fmt;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use scheduler::HandoffPolicy;

use crate::checks::ledger::Ask;
use crate::network::{HostId, Quality};
use crate::planted::Bug;

/// How long a cluster may take to be well again after its last trouble: leases, back-offs and
/// connections that are found dead.
pub const SETTLING: Duration = Duration::from_secs(8);
/// When troubles begin.
pub const CALM_BEFORE: Duration = Duration::from_secs(4);
/// When they have ended.
pub const CALM_AFTER: Duration = Duration::from_secs(13);

/// The share of clusters that are in the middle of a rollout of new weights.
const ROLLOUTS: f64 = 0.2;

/// The share of clusters that let members in only, with strangers who try. Handshakes are dear.
const LOCKED: f64 = 0.15;
/// Of those, the share whose nodes know each other by a secret; the others have certificates.
const SECRET: f64 = 0.3;

/// The share of plans in which a crowd of requests comes at once.
const CROWDS: f64 = 0.25;

/// The share of clusters in which either kind of worker does both phases where that costs less; in the others every prompt is
/// handed over.
const BY_COST: f64 = 0.25;

/// The weights that a rollout brings.
const NEW_WEIGHTS: u64 = 2;

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// etcd.
    Etcd,
    /// A router, counted from 0, and the clients that ask it.
    Router(usize),
    /// A prefill worker, with these weights.
    Prefill(u64),
    /// A decode worker, with these weights.
    Decode(u64),
    /// Somebody who doesn't belong.
    Stranger,
}

/// Something that goes wrong for a time.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// What.
    pub what: What,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum What {
    /// A process is killed, its clock changes by these milliseconds, and it starts again.
    Kill(HostId, i64),
    /// The clock of a running process changes by these milliseconds.
    Clock(HostId, i64),
    /// A worker or a router is told to leave, and is started again when it has left.
    Leave(HostId),
    /// The same, and the worker comes back with new weights.
    Update(HostId),
    /// A machine goes dark without a word, and comes back.
    Dark(HostId),
    /// A process is stopped as it is, and goes on.
    Stop(HostId),
    /// Nothing gets from one host to another.
    Cut(HostId, HostId),
    /// A host is cut off from all others.
    Isolate(HostId),
    /// The way from one host to another is bad.
    Bad(HostId, HostId, Quality),
    /// etcd is killed, and comes back with nothing.
    Wipe(HostId),
    /// etcd is killed, and comes back with what it had some seconds ago.
    Restore(HostId),
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it follows from.
    pub seed: u64,
    /// The hosts, in order of their ids, from 1.
    pub parts: Vec<Part>,
    /// The clients.
    pub asks: Vec<Ask>,
    /// What goes wrong, in order of its beginning.
    pub troubles: Vec<Trouble>,
    /// How often a message of a hand-off is lost, at most. Nothing below tells of it, so it costs a
    /// stall to find out.
    pub drop: f64,
    /// Whether many requests come at once.
    pub crowd: bool,
    /// How members know each other.
    pub lock: Lock,
    /// The first token that requests are let in for comes within this time.
    pub ttft: Duration,
    /// When prompts are handed over.
    pub handoff: HandoffPolicy,
    /// What is planted.
    pub bug: Option<Bug>,
}

/// How members of a cluster know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Not at all.
    Open,
    /// By a secret.
    Secret,
    /// By certificates of one authority.
    Certificates,
}

// === impl Plan ===

impl Plan {
    /// What `seed` stands for.
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let parts = parts(&mut rng, bug);
        let routers = parts.iter().filter(|part| matches!(part, Part::Router(_))).count();
        let crowd = bug.is_none() && rng.random_bool(CROWDS);
        let asks = asks::draw(&mut rng, routers, crowd);
        let troubles = troubles::draw(&mut rng, &parts, bug);
        let drop = if bug.is_none() && rng.random_bool(0.3) { 0.05 } else { 0.0 };
        let lock = if rng.random_bool(SECRET) { Lock::Secret } else { Lock::Certificates };
        let is_locked = parts.contains(&Part::Stranger) && bug != Some(Bug::UnauthenticatedCall);
        let lock = if is_locked { lock } else { Lock::Open };
        let ttft = Duration::from_millis(if crowd { rng.random_range(100..5_000) } else { 5_000 });
        let by_cost = bug.is_none() && rng.random_bool(BY_COST);
        let handoff = if by_cost { HandoffPolicy::Auto } else { HandoffPolicy::Always };
        Self { seed, parts, asks, troubles, drop, crowd, lock, ttft, handoff, bug }
    }

    /// The weights that anybody has, or will have.
    #[must_use]
    pub fn weights(&self) -> Vec<u64> {
        let mut weights: Vec<u64> = self.parts.iter().filter_map(|part| part.weights()).collect();
        if self.troubles.iter().any(|trouble| matches!(trouble.what, What::Update(_))) {
            weights.push(NEW_WEIGHTS);
        }
        weights.sort_unstable();
        weights.dedup();
        weights
    }

    /// Whether whatever can be done is done soon while all is well.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.drop == 0.0 && !self.crowd
    }

    /// Whether bits flip on some way: then what no message binds, as a report, may say anything.
    #[must_use]
    pub fn has_flips(&self) -> bool {
        let flips = |trouble: &Trouble| matches!(&trouble.what, What::Bad(_, _, quality) if quality.flip > 0.0);
        self.troubles.iter().any(flips)
    }

    /// Whether everything has been well for long enough at `at`.
    #[must_use]
    pub fn is_settled(&self, at: Duration) -> bool {
        let disturbed = |trouble: &Trouble| trouble.from <= at && at < trouble.until + SETTLING;
        at >= CALM_BEFORE && !self.troubles.iter().any(disturbed)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} requests to", self.seed, self.asks.len())?;
        for (host, part) in (1..).zip(&self.parts) {
            writeln!(f, "  host {host}: {part:?}")?;
        }
        for Trouble { from, until, what } in &self.troubles {
            writeln!(f, "  {:.3} to {:.3} s: {what:?}", from.as_secs_f64(), until.as_secs_f64())?;
        }
        Ok(())
    }
}

// === impl What ===

impl What {
    /// What kind of trouble it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill(_, 0) => "kill",
            Self::Kill(..) | Self::Clock(..) => "clock",
            Self::Leave(_) => "leave",
            Self::Update(_) => "new weights",
            Self::Dark(_) => "dark",
            Self::Stop(_) => "stop",
            Self::Cut(..) => "cut",
            Self::Isolate(_) => "isolate",
            Self::Bad(..) => "bad way",
            Self::Wipe(_) => "wipe",
            Self::Restore(_) => "restore",
        }
    }

    /// Whom it strikes.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostId> {
        match *self {
            Self::Cut(from, to) | Self::Bad(from, to, _) => vec![from, to],
            Self::Kill(host, _)
            | Self::Clock(host, _)
            | Self::Leave(host)
            | Self::Update(host)
            | Self::Dark(host)
            | Self::Stop(host)
            | Self::Isolate(host)
            | Self::Wipe(host)
            | Self::Restore(host) => vec![host],
        }
    }
}

// === impl Part ===

impl Part {
    /// What kind of node it is.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Router(_) => "router",
            Self::Prefill(_) => "prefill",
            Self::Decode(_) => "decode",
            Self::Stranger => "stranger",
        }
    }

    /// Whether the two have anything to say to each other.
    #[must_use]
    pub fn meets(self, other: Self) -> bool {
        match (self, other) {
            (Self::Stranger, _) | (_, Self::Stranger) | (Self::Etcd, Self::Etcd) => false,
            (Self::Etcd, _) | (_, Self::Etcd) => true,
            (Self::Router(_), Self::Router(_)) => false,
            (Self::Router(_), _) | (_, Self::Router(_)) => true,
            (Self::Prefill(_), Self::Decode(_)) | (Self::Decode(_), Self::Prefill(_)) => true,
            (Self::Prefill(_), Self::Prefill(_)) | (Self::Decode(_), Self::Decode(_)) => false,
        }
    }

    /// The same with new weights, if it is a worker.
    #[must_use]
    pub fn updated(self) -> Self {
        match self {
            Self::Prefill(_) => Self::Prefill(NEW_WEIGHTS),
            Self::Decode(_) => Self::Decode(NEW_WEIGHTS),
            other => other,
        }
    }

    fn weights(self) -> Option<u64> {
        match self {
            Self::Prefill(weights) | Self::Decode(weights) => Some(weights),
            Self::Etcd | Self::Router(_) | Self::Stranger => None,
        }
    }
}

fn parts(rng: &mut ChaCha8Rng, bug: Option<Bug>) -> Vec<Part> {
    let mut parts = vec![Part::Etcd];
    parts.extend((0..rng.random_range(1..=2)).map(Part::Router));
    let prefills = rng.random_range(1..=2);
    let decoders = rng.random_range(1..=3);
    // A rollout: new weights beside the old ones, under the same name.
    let planted = bug.is_some_and(Bug::needs_rollout);
    let rollout = planted || bug.is_none() && rng.random_bool(ROLLOUTS);
    let mut weights = || if rollout && rng.random_bool(0.5) { NEW_WEIGHTS } else { 1 };
    parts.extend((0..prefills).map(|_| Part::Prefill(weights())));
    parts.extend((0..decoders).map(|_| Part::Decode(weights())));
    if bug == Some(Bug::UnpinnedFingerprint) || planted {
        parts.push(Part::Decode(NEW_WEIGHTS));
    }
    if bug == Some(Bug::UnauthenticatedCall) || rng.random_bool(LOCKED) {
        parts.push(Part::Stranger);
    }
    parts
}
