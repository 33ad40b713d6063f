//! What a request has run into so far, and so where it is not sent next, and when it gives up.
//!
//! Time does not end a request here: that is its deadline's. What ends it early is the suspicion that
//! the request itself is at fault, which grows with every worker that breaks under it and is gone
//! with the next token.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster::ErrorCode;
use cluster::retry::backoff::Backoff;
use scheduler::{Placement, PlacementReason};
use words::{Life, WorkerId};

use super::DispatchError;

/// The workers that may break under a request in a row, without a token in between: by then it is
/// likely to be the request that breaks them, and there are others to protect. One worker that comes
/// and goes counts once, however often.
const BROKEN_MAX: usize = 8;
/// The failures that workers which are well may report of a request in a row, without a token in
/// between: a fault of one of them does not show on another.
const FAULTS_MAX: u32 = 3;
/// How long a life that failed a request is not given it again; twice as long each further time.
/// Shorter than a worker takes to come back, which is another life then and may be tried at once.
const AVOID_MIN: Duration = Duration::from_millis(500);
const AVOID_MAX: Duration = Duration::from_secs(10);
/// The first pause before a cluster without room is asked again; each one is twice as long as the
/// last.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// When a refused client should come back, where the worker that refused gave no time: about what
/// a full queue of short prompts takes.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// How a worker failed a request.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    /// Who.
    pub(super) life: Life,
    /// Whether it had taken the request: one that can't be reached did not break under it.
    pub(super) taken: bool,
    /// What it said, or what became of its stream.
    pub(super) error: DispatchError,
}

/// The lives that failed a request, and those that had no room for it.
#[derive(Clone, Debug)]
pub(super) struct Setbacks {
    avoided: Vec<Avoided>,
    busy: Vec<Life>,
    broken: BTreeSet<WorkerId>,
    faults: u32,
    /// A worker's model came to no numbers. Not forgiven: the second that does gives the request up.
    miscomputed: bool,
    refusal: Option<DispatchError>,
    pauses: Backoff,
}

/// A life that is left alone for a time.
#[derive(Clone, Debug)]
struct Avoided {
    life: Life,
    pause: Duration,
    until: Instant,
}

// === impl Setbacks ===

impl Setbacks {
    pub(super) fn none() -> Self {
        Self {
            avoided: Vec::new(),
            busy: Vec::new(),
            broken: BTreeSet::new(),
            faults: 0,
            miscomputed: false,
            refusal: None,
            pauses: Backoff::new(PAUSE_MIN, PAUSE_MAX, Backoff::seed()),
        }
    }

    /// Notes how a worker failed.
    ///
    /// # Errors
    /// The failure itself, when it was one too many.
    pub(super) fn add(&mut self, loss: Loss, now: Instant) -> Result<(), DispatchError> {
        let Loss { life, taken, error } = loss;
        if error.code == ErrorCode::Busy {
            self.busy.push(life);
            let sooner = |one: Option<Duration>| one.unwrap_or(BUSY_RETRY);
            let before = self.refusal.as_ref().map(|refusal| sooner(refusal.retry_after));
            let retry_after = before.into_iter().fold(sooner(error.retry_after), Duration::min);
            self.refusal = Some(error.again_after(retry_after));
            return Ok(());
        }
        if taken {
            self.broken.insert(life.worker.clone());
        }
        if is_fault(error.code) {
            self.faults += 1;
            self.refusal = Some(error.clone());
        }
        self.avoid(life, now);
        let again = error.code.retryable_once() && std::mem::replace(&mut self.miscomputed, true);
        let enough = self.broken.len() >= BROKEN_MAX || self.faults >= FAULTS_MAX;
        if again || enough { Err(error) } else { Ok(()) }
    }

    /// The request has come on: whatever broke, it was not because of the request.
    pub(super) fn forgive(&mut self) {
        self.broken.clear();
        self.faults = 0;
        self.refusal = None;
        self.pauses.reset();
    }

    /// Where not to go now.
    pub(super) fn excluded(&self, now: Instant) -> Vec<Life> {
        let avoided = self.avoided.iter().filter(|avoided| now < avoided.until);
        avoided.map(|avoided| &avoided.life).chain(&self.busy).cloned().collect()
    }

    /// What to tell a client that has nothing yet, instead of making it wait: that a worker was
    /// full, or what a worker found wrong.
    pub(super) fn refusal(&self) -> Option<&DispatchError> {
        self.refusal.as_ref()
    }

    /// Whether a placement is what is left when full workers are taken for absent: a prefill worker
    /// would generate, too, while those made for it are only busy.
    pub(super) fn only_seems_fit(&self, placement: &Placement) -> bool {
        use PlacementReason::{DecodePoolEmpty, DecodePoolExcluded};
        let lacks_decode = matches!(placement.reason, DecodePoolEmpty | DecodePoolExcluded);
        lacks_decode && !self.busy.is_empty()
    }

    /// How long to wait before the cluster is asked again, full workers included.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.busy.clear();
        self.pauses.delay()
    }

    fn avoid(&mut self, life: Life, now: Instant) {
        // Who has been well for as long as it was avoided starts over.
        self.avoided.retain(|avoided| now < avoided.until + avoided.pause);
        let known = self.avoided.iter_mut().find(|avoided| avoided.life == life);
        match known {
            Some(avoided) => {
                avoided.pause = (avoided.pause * 2).min(AVOID_MAX);
                avoided.until = now + avoided.pause;
            }
            None => {
                let (pause, until) = (AVOID_MIN, now + AVOID_MIN);
                self.avoided.push(Avoided { life, pause, until });
            }
        }
    }
}

/// Whether a worker that is well says that this request failed on it.
fn is_fault(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Internal | ErrorCode::Corrupt | ErrorCode::Miscomputed)
}

#[cfg(test)]
mod tests;
