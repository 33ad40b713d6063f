//! What a seed stands for: a cluster, its clients, and what goes wrong when.

mod asks;
mod troubles;

use std::fmt;
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::ledger::Ask;
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

/// The share of clusters that have a secret, and a stranger who doesn't know it. Handshakes are dear.
const LOCKED: f64 = 0.1;

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
    /// A worker is told to leave, and is started again when it has left.
    Leave(HostId),
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
    /// What is planted.
    pub bug: Option<Bug>,
}

// === impl Plan ===

impl Plan {
    /// What `seed` stands for.
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let parts = parts(&mut rng, bug);
        let routers = parts.iter().filter(|part| matches!(part, Part::Router(_))).count();
        let asks = asks::draw(&mut rng, routers);
        let troubles = troubles::draw(&mut rng, &parts);
        let drop = if bug.is_none() && rng.random_bool(0.3) { 0.05 } else { 0.0 };
        Self { seed, parts, asks, troubles, drop, bug }
    }

    /// The weights that anybody has.
    #[must_use]
    pub fn weights(&self) -> Vec<u64> {
        let mut weights: Vec<u64> = self.parts.iter().filter_map(|part| part.weights()).collect();
        weights.sort_unstable();
        weights.dedup();
        weights
    }

    /// Whether nodes prove to each other who they are.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.parts.contains(&Part::Stranger) && self.bug != Some(Bug::UnauthenticatedCall)
    }

    /// Whether whatever can be done is done soon while all is well.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.drop == 0.0
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

// === impl Part ===

impl Part {
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
    let rollout = bug.is_none() && rng.random_bool(ROLLOUTS);
    let mut weights = || if rollout && rng.random_bool(0.5) { 2 } else { 1 };
    parts.extend((0..prefills).map(|_| Part::Prefill(weights())));
    parts.extend((0..decoders).map(|_| Part::Decode(weights())));
    if bug == Some(Bug::UnpinnedFingerprint) {
        parts.push(Part::Decode(2));
    }
    if bug == Some(Bug::UnauthenticatedCall) || rng.random_bool(LOCKED) {
        parts.push(Part::Stranger);
    }
    parts
}
