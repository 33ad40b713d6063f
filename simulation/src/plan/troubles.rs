//! What goes wrong, and when.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::{CALM_AFTER, CALM_BEFORE, Part, Trouble, What};
use crate::network::{HostId, Quality};
use crate::planted::Bug;

/// Troubles of one run, at most.
const TROUBLES_MAX: usize = 5;
/// How far a clock is changed, at most: ten minutes.
const CLOCK_JUMP_MS: i64 = 600_000;

pub(super) fn draw(rng: &mut ChaCha8Rng, parts: &[Part], bug: Option<Bug>) -> Vec<Trouble> {
    let count = rng.random_range(0..=TROUBLES_MAX);
    let mut troubles: Vec<Trouble> = (0..count).map(|_| trouble(rng, parts)).collect();
    // Another kind of weights may be what is planted.
    troubles.retain(|trouble| bug.is_none() || !matches!(trouble.what, What::Update(_)));
    troubles.sort_by_key(|trouble| trouble.from);
    troubles
}

fn trouble(rng: &mut ChaCha8Rng, parts: &[Part]) -> Trouble {
    let span = (CALM_BEFORE.as_millis() as u64, CALM_AFTER.as_millis() as u64);
    let from = rng.random_range(span.0..span.1 - 100);
    // Short ones are as telling as long ones.
    let longest = (span.1 - from).min(if rng.random_bool(0.5) { 1_500 } else { 8_000 });
    let until = from + rng.random_range(50..=longest.max(51));
    Trouble {
        from: Duration::from_millis(from),
        until: Duration::from_millis(until.min(span.1)),
        what: what(rng, parts),
    }
}

fn what(rng: &mut ChaCha8Rng, parts: &[Part]) -> What {
    let etcd = HostId(1);
    let host = one_of(rng, parts, |part| part != Part::Stranger);
    let node = one_of(rng, parts, |part| !matches!(part, Part::Etcd | Part::Stranger));
    let worker = one_of(rng, parts, |part| matches!(part, Part::Prefill(_) | Part::Decode(_)));
    let (from, to) = way(rng, parts);
    match rng.random_range(0..13) {
        0 | 1 => What::Kill(host, 0),
        2 => What::Kill(host, rng.random_range(-CLOCK_JUMP_MS..=CLOCK_JUMP_MS)),
        3 => What::Dark(host),
        4 => What::Stop(host),
        5 => What::Cut(from, to),
        6 => What::Isolate(host),
        // What flips on the way to etcd is written down there, and no one's fault here.
        7 | 8 if from == etcd || to == etcd => What::Bad(from, to, bad(rng)),
        7 | 8 => What::Bad(from, to, Quality { flip: flips(rng), ..bad(rng) }),
        9 => What::Leave(node),
        10 => What::Clock(host, rng.random_range(-CLOCK_JUMP_MS..=CLOCK_JUMP_MS)),
        11 => What::Update(worker),
        _ if rng.random_bool(0.5) => What::Wipe(etcd),
        _ => What::Restore(etcd),
    }
}

/// A host of some kind.
fn one_of(rng: &mut ChaCha8Rng, parts: &[Part], fits: impl Fn(Part) -> bool) -> HostId {
    let hosts = (1..).map(HostId).zip(parts);
    let fitting: Vec<HostId> =
        hosts.filter(|(_, part)| fits(**part)).map(|(host, _)| host).collect();
    fitting[rng.random_range(0..fitting.len())]
}

/// From one host to another that it has to do with.
fn way(rng: &mut ChaCha8Rng, parts: &[Part]) -> (HostId, HostId) {
    let from = one_of(rng, parts, |part| part != Part::Stranger);
    let part = parts[usize::from(from.0) - 1];
    (from, one_of(rng, parts, |other| part.meets(other)))
}

/// How often a bit of a segment flips: never, in some cases.
fn flips(rng: &mut ChaCha8Rng) -> f64 {
    if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.005..0.2) }
}

fn bad(rng: &mut ChaCha8Rng) -> Quality {
    Quality {
        latency: Duration::from_millis(rng.random_range(0..60)),
        jitter: Duration::from_millis(rng.random_range(1..200)),
        loss: rng.random_range(0.0..0.3),
        flip: 0.0,
    }
}
