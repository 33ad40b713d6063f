//! What goes wrong, and when.

use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::{CALM_AFTER, CALM_BEFORE, Part, Trouble, What};
use crate::network::{HostId, Quality};

/// Troubles of one run, at most.
const TROUBLES_MAX: usize = 5;
/// How far a clock is changed, at most: ten minutes.
const CLOCK_JUMP_MS: i64 = 600_000;

pub(super) fn draw(rng: &mut ChaCha8Rng, parts: &[Part]) -> Vec<Trouble> {
    let count = rng.random_range(0..=TROUBLES_MAX);
    let mut troubles: Vec<Trouble> = (0..count).map(|_| trouble(rng, parts)).collect();
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
    let host = HostId(rng.random_range(1..=parts.len() as u8));
    let other = HostId(rng.random_range(1..=parts.len() as u8));
    let etcd = HostId(1);
    match rng.random_range(0..11) {
        0 | 1 => What::Kill(host, 0),
        2 => What::Kill(host, rng.random_range(-CLOCK_JUMP_MS..=CLOCK_JUMP_MS)),
        3 => What::Dark(host),
        4 => What::Stop(host),
        5 => What::Cut(host, other),
        6 => What::Isolate(host),
        // What flips on the way to etcd is written down there, and no one's fault here.
        7 | 8 if host == etcd || other == etcd => What::Bad(host, other, bad(rng)),
        7 | 8 => What::Bad(host, other, Quality { flip: flips(rng), ..bad(rng) }),
        9 => What::Leave(host),
        _ if rng.random_bool(0.5) => What::Wipe(etcd),
        _ => What::Restore(etcd),
    }
}

/// How often a bit of a segment flips: never, in most cases.
fn flips(rng: &mut ChaCha8Rng) -> f64 {
    if rng.random_bool(0.6) { 0.0 } else { rng.random_range(0.001..0.05) }
}

fn bad(rng: &mut ChaCha8Rng) -> Quality {
    Quality {
        latency: Duration::from_millis(rng.random_range(0..60)),
        jitter: Duration::from_millis(rng.random_range(1..200)),
        loss: rng.random_range(0.0..0.3),
        flip: 0.0,
    }
}
