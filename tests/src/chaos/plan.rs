//! What goes wrong when, by a seed.

use std::fmt;
use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::mischief::Mischief;
use super::wire::Weather;

/// Workers of each kind, and routers.
pub(super) const SEATS: usize = 2;
/// How long a worker stands still whose like was killed at the same time.
const LIKE_AWAY: Duration = Duration::from_secs(4);

/// The faults of one round, in the order in which they come.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What chose them.
    pub seed: u64,
    /// Which of the rounds.
    pub round: u64,
    /// Of each kind of node, the one that is never ended in this round.
    pub spared: usize,
    /// How long it takes.
    pub length: Duration,
    /// The faults.
    pub events: Vec<Event>,
}

/// A fault.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// From the round's beginning.
    pub at: Duration,
    /// Who is hit.
    pub target: Target,
    /// By what.
    pub fault: Fault,
    /// Whether its like is hit at the same time, so that none of the kind is left.
    pub takes_all: bool,
}

/// Who is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// One of the prefill workers.
    Prefill(usize),
    /// One of the decode workers.
    Decode(usize),
    /// One of the routers.
    Router(usize),
    /// Where they meet.
    Etcd,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It is killed, and comes back after a while, at its port or, if it `moves`, at another.
    Kill {
        /// How long it is away.
        down: Duration,
        /// Whether its next life is elsewhere.
        moves: bool,
    },
    /// It is killed, comes back, and is killed as soon as it has bound its ports, so often.
    Flap(u32),
    /// It is asked to leave, does, and comes back.
    Drain,
    /// It stands still.
    Freeze(Duration),
    /// The wire to it has weather.
    Weather(Weather, Duration),
    /// The connections to it are cut, by a farewell or by a reset.
    Cut {
        /// By a reset.
        is_reset: bool,
    },
    /// It forgets everything, is away for a while and comes back (etcd).
    Wipe(Duration),
    /// Strangers are rude to it (routers).
    Rude(Mischief),
}

// === impl Plan ===

impl Plan {
    /// The faults of round `round` of a run with this seed.
    #[must_use]
    pub fn new(seed: u64, round: u64, spared: usize, length: Duration) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(round);
        let mut events = Vec::new();
        let mut at = pause(&mut rng);
        while at < length {
            events.push(Event::new(at, spared, &mut rng));
            at += pause(&mut rng);
        }
        Self { seed, round, spared, length, events }
    }
}

fn pause(rng: &mut ChaCha8Rng) -> Duration {
    ms(150..1500, rng)
}

fn ms(range: std::ops::Range<u64>, rng: &mut ChaCha8Rng) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, round {}, never ended: number {}",
            self.seed, self.round, self.spared
        )?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}

// === impl Event ===

impl Event {
    fn new(at: Duration, spared: usize, rng: &mut ChaCha8Rng) -> Self {
        let index = rng.random_range(0..SEATS);
        let target = match rng.random_range(0..10) {
            0..=2 => Target::Prefill(index),
            3..=5 => Target::Decode(index),
            6..=8 => Target::Router(index),
            _ => Target::Etcd,
        };
        let fault = match target {
            Target::Etcd => Fault::of_etcd(rng),
            Target::Router(_) => Fault::of_router(index == spared, rng),
            Target::Prefill(_) | Target::Decode(_) => Fault::of_worker(index == spared, rng),
        };
        let takes_all = fault.may_take_all(target) && rng.random_bool(0.1);
        Self { at, target, fault, takes_all }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, whom) = (self.at.as_secs_f64(), self.target.name());
        let like = if self.takes_all { self.target.other().name() } else { String::new() };
        write!(f, "{at:6.1} s  {whom:<4} {like:<2} {}", self.fault)
    }
}

// === impl Target ===

impl Target {
    /// Its name, in logs as well.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Prefill(index) => format!("p{index}"),
            Self::Decode(index) => format!("d{index}"),
            Self::Router(index) => format!("r{index}"),
            Self::Etcd => "etcd".to_owned(),
        }
    }

    /// What it is for.
    pub(super) fn role(self) -> &'static str {
        match self {
            Self::Prefill(_) => "prefill",
            Self::Decode(_) => "decode",
            Self::Router(_) => "router",
            Self::Etcd => "etcd",
        }
    }

    /// Its like.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Prefill(index) => Self::Prefill(SEATS - 1 - index),
            Self::Decode(index) => Self::Decode(SEATS - 1 - index),
            Self::Router(index) => Self::Router(SEATS - 1 - index),
            Self::Etcd => Self::Etcd,
        }
    }
}

// === impl Fault ===

impl Fault {
    fn of_worker(is_spared: bool, rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..10) {
            0..=2 if !is_spared => Self::kill(rng.random_bool(0.5), rng),
            3 if !is_spared => match rng.random_bool(0.5) {
                true => Self::Drain,
                false => Self::Flap(rng.random_range(2..4)),
            },
            0..=4 => Self::Freeze(ms(200..10_000, rng)),
            5..=6 => Self::Cut { is_reset: rng.random_bool(0.5) },
            _ => Self::weather(rng),
        }
    }

    fn of_router(is_spared: bool, rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..10) {
            // Clients know it by its port.
            0 if !is_spared => Self::kill(false, rng),
            1 if !is_spared => Self::Drain,
            0..=2 => Self::Freeze(ms(200..8_000, rng)),
            3 => Self::Cut { is_reset: rng.random_bool(0.5) },
            // What flips between a client and the gateway is for TLS to find.
            4..=5 => Self::Weather(sky(rng), ms(500..4_000, rng)),
            _ => Self::Rude(*Mischief::ALL.choose(rng).expect("a mischief")),
        }
    }

    fn of_etcd(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..5) {
            0 => Self::Kill { down: ms(500..8_000, rng), moves: false },
            1 => Self::Freeze(ms(500..10_000, rng)),
            2 => Self::Cut { is_reset: rng.random_bool(0.5) },
            3 => Self::weather(rng),
            _ => Self::Wipe(ms(0..6_000, rng)),
        }
    }

    fn kill(moves: bool, rng: &mut ChaCha8Rng) -> Self {
        Self::Kill { down: ms(0..4_000, rng), moves }
    }

    fn weather(rng: &mut ChaCha8Rng) -> Self {
        let weather = if rng.random_bool(0.5) {
            Weather::Flipping(1 << rng.random_range(8..16))
        } else {
            sky(rng)
        };
        Self::Weather(weather, ms(500..8_000, rng))
    }

    /// Whether it may befall all workers of a kind at once.
    fn may_take_all(self, target: Target) -> bool {
        let is_worker = matches!(target, Target::Prefill(_) | Target::Decode(_));
        is_worker && !matches!(self, Self::Weather(..) | Self::Drain)
    }

    /// What happens to the target's like, if all are hit: a process is ended only alone, as its like may be the
    /// one that is spared, and is away as well.
    pub(super) fn beside(self) -> Self {
        match self {
            Self::Kill { .. } | Self::Flap(_) => Self::Freeze(LIKE_AWAY),
            other => other,
        }
    }

    /// What it is called in a table.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Flap(_) => "flap",
            Self::Drain => "drain",
            Self::Freeze(_) => "freeze",
            Self::Weather(Weather::Late(_), _) => "delay",
            Self::Weather(Weather::Flipping(_), _) => "flip bits",
            Self::Weather(..) => "stall",
            Self::Cut { .. } => "cut",
            Self::Wipe(_) => "wipe",
            Self::Rude(_) => "rude",
        }
    }
}

fn sky(rng: &mut ChaCha8Rng) -> Weather {
    match rng.random_range(0..3) {
        0 => Weather::Late(ms(1..40, rng)),
        1 => Weather::Stalled,
        _ => Weather::Mute,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { down, moves: false } => write!(f, "killed, back after {down:?}"),
            Self::Kill { down, moves: true } => write!(f, "killed, elsewhere after {down:?}"),
            Self::Flap(lives) => write!(f, "killed {lives} times while it starts"),
            Self::Drain => f.write_str("asked to leave, and back"),
            Self::Freeze(time) => write!(f, "stopped for {time:?}"),
            Self::Weather(weather, time) => write!(f, "wire {weather:?} for {time:?}"),
            Self::Cut { is_reset: true } => f.write_str("connections reset"),
            Self::Cut { is_reset: false } => f.write_str("connections closed"),
            Self::Wipe(down) => write!(f, "wiped, back after {down:?}"),
            Self::Rude(mischief) => write!(f, "{mischief:?}"),
        }
    }
}
