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
pub const CALM_BEFORE: Duration = Duration::from_secs(6);
/// When they have ended.
pub const CALM_AFTER: Duration = Duration::from_secs(15);

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
        Self { seed, parts, asks, troubles, bug }
    }

    /// The weights that anybody has.
    #[must_use]
    pub fn weights(&self) -> Vec<u64> {
        let mut weights: Vec<u64> = self.parts.iter().filter_map(|part| part.weights()).collect();
        weights.sort_unstable();
        weights.dedup();
        weights
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
            Self::Etcd | Self::Router(_) => None,
        }
    }
}

fn parts(rng: &mut ChaCha8Rng, bug: Option<Bug>) -> Vec<Part> {
    let mut parts = vec![Part::Etcd];
    parts.extend((0..rng.random_range(1..=2)).map(Part::Router));
    parts.extend((0..rng.random_range(1..=2)).map(|_| Part::Prefill(1)));
    let decoders = rng.random_range(1..=3);
    let odd = bug == Some(Bug::UnpinnedFingerprint);
    parts.extend((0..decoders).map(|index| Part::Decode(if odd && index > 0 { 2 } else { 1 })));
    parts
}
