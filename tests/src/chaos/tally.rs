//! What came of all requests, and which faults there were.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Of each kind of flaw, so many are told in full.
const TOLD_MAX: usize = 10;

/// Counts that many tasks add to.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<Counts>,
}

/// How requests ended, and what was done to the cluster meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests sent.
    pub asked: u64,
    /// Answered in full, each token as it should be.
    pub right: u64,
    /// Of these, with KV from another worker, as far as gRPC told.
    pub handed_over: u64,
    /// Refused with a time to come back.
    pub refused: u64,
    /// Given up by their clients.
    pub left: u64,
    /// Broken off because their router was ended, or their connection to it was.
    pub parted: u64,
    /// Failed with a clear error while their router was going, or all workers of a kind were away, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Another token than one engine alone would have said, or a part that passes for the whole.
    pub wrong: u64,
    /// No answer, though there were workers all the time, a router and a connection to it.
    pub lost: u64,
    /// Neither answer nor error by the deadline.
    pub hung: u64,
    /// The longest of all.
    pub slowest: (Duration, String),
    /// Faults, by whom they hit and what they were.
    pub faults: BTreeMap<(String, &'static str), u64>,
    /// Faults that were left out: they would have taken the last node of a kind.
    pub spared: u64,
    /// Bits flipped.
    pub flips: u64,
    /// What was found, in words.
    pub findings: Vec<String>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Right,
    Refused,
    Left,
    Parted,
    Failed(String),
    Wrong(String),
    Lost(String),
    Hung,
}

// === impl Tally ===

impl Tally {
    /// As they are now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }

    /// Counts a request.
    pub(super) fn ended(&self, ending: Ending, took: Duration, request: impl Fn() -> String) {
        let mut counts = self.counts.lock();
        counts.asked += 1;
        if took > counts.slowest.0 {
            counts.slowest = (took, request());
        }
        let (count, kind, detail) = match ending {
            Ending::Right => (&mut counts.right, "", None),
            Ending::Refused => (&mut counts.refused, "", None),
            Ending::Left => (&mut counts.left, "", None),
            Ending::Parted => (&mut counts.parted, "", None),
            Ending::Failed(kind) => (counts.failed.entry(kind).or_default(), "", None),
            Ending::Wrong(why) => (&mut counts.wrong, "wrong", Some(why)),
            Ending::Lost(why) => (&mut counts.lost, "lost", Some(why)),
            Ending::Hung => (&mut counts.hung, "hung", Some(String::new())),
        };
        *count += 1;
        if let Some(why) = detail.filter(|_| *count <= TOLD_MAX as u64) {
            counts.find(format!("{kind}: {}: {why}", request()));
        }
    }

    /// Counts a hand-off.
    pub(super) fn handed_over(&self) {
        self.counts.lock().handed_over += 1;
    }

    /// Counts a fault.
    pub(super) fn hit(&self, whom: String, fault: &'static str) {
        *self.counts.lock().faults.entry((whom, fault)).or_default() += 1;
    }

    /// Counts one that was left out.
    pub(super) fn spare(&self) {
        self.counts.lock().spared += 1;
    }

    /// Counts flipped bits.
    pub(super) fn flipped(&self, bits: u64) {
        self.counts.lock().flips += bits;
    }

    /// Notes what is no request's.
    pub(super) fn found(&self, what: String) {
        self.counts.lock().find(what);
    }
}

// === impl Counts ===

impl Counts {
    /// Told at once: the logs of the moment say more.
    fn find(&mut self, what: String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (hours, minutes, seconds) =
            (now.as_secs() / 3600 % 24, now.as_secs() / 60 % 60, now.as_secs() % 60);
        eprintln!("{hours:02}:{minutes:02}:{seconds:02} UTC found: {what}");
        self.findings.push(what);
    }

    /// Faults in all.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// In one line.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests: {} right, {} refused, {} left, {} parted, {} failed, {} wrong, {} lost, {} hung; {} faults",
            self.asked,
            self.right,
            self.refused,
            self.left,
            self.parted,
            self.failed.values().sum::<u64>(),
            self.wrong,
            self.lost,
            self.hung,
            self.hits(),
        )
    }
}
