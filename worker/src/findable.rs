//! Whether routers can find this worker.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cluster::{Followers, Standing};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How long routers may take to hear of a registration and to open their streams. Without a router
/// that says that it is there, nothing tells when one would have come.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// What there is to tell whether routers can find this worker. A clone tells the same.
///
/// A worker that says it is ready before it can be found is an outage in a rolling restart: whoever
/// goes by that stops the next one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findable {
    evidence: Arc<Evidence>,
}

#[derive(Debug, Default)]
struct Evidence {
    followers: OnceLock<Followers>,
    standing: OnceLock<watch::Receiver<Standing>>,
    registered_since: Mutex<Option<Instant>>,
}

// === impl Findable ===

impl Findable {
    /// Routers that stream this worker's reports know it.
    pub(crate) fn by_streams(&self, followers: Followers) {
        self.evidence.followers.get_or_init(|| followers);
    }

    /// Routers that watch the membership will know it.
    pub(crate) fn by_registration(&self, standing: watch::Receiver<Standing>) {
        self.evidence.standing.get_or_init(|| standing);
        self.registered_for(cluster::clock::now());
    }

    /// Whether routers can find it now.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, now: Instant) -> Result<(), String> {
        let registered = self.registered_for(now);
        if self.evidence.followers.get().is_some_and(|followers| followers.count() > 0) {
            return Ok(());
        }
        match registered {
            Some(time) if time >= HEARD_WITHIN => Ok(()),
            Some(_) => Err("routers are just being told of it".into()),
            None => {
                Err("no router can find it: it is not registered yet, and no router that knew \
                         its address has come by"
                    .into())
            }
        }
    }

    fn registered_for(&self, now: Instant) -> Option<Duration> {
        let standing = self.evidence.standing.get().map(|standing| *standing.borrow());
        let mut since = self.evidence.registered_since.lock();
        if standing != Some(Standing::Registered) {
            *since = None;
            return None;
        }
        Some(now.saturating_duration_since(*since.get_or_insert(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_findable_a_moment_after_it_is_registered_and_while_it_stays_so() {
        let (findable, now) = (Findable::default(), Instant::now());
        assert!(findable.check(now).is_err(), "nobody knows of it");
        let (standing, receiver) = watch::channel(Standing::Pending);
        findable.by_registration(receiver);
        assert!(findable.check(now).is_err(), "etcd is away");
        standing.send_replace(Standing::Registered);
        assert!(findable.check(now).is_err(), "nobody has heard of it yet");
        assert_eq!(findable.check(now + HEARD_WITHIN), Ok(()));
        standing.send_replace(Standing::Pending);
        assert!(findable.check(now + 2 * HEARD_WITHIN).is_err(), "a router that starts now can't");
    }
}
