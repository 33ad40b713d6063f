//! Finds a seed that stands still in real time: says where, and ends its process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::network::HostId;

/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(250);

/// How far a run has come. A clone is another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    now_us: AtomicU64,
    host: AtomicU64,
}

// === impl Progress ===

impl Progress {
    /// A host is about to run until `now`.
    pub fn note(&self, now: Duration, host: HostId) {
        self.0.now_us.store(now.as_micros() as u64, Ordering::Relaxed);
        self.0.host.store(host.0.into(), Ordering::Relaxed);
    }

    /// Has a thread end this process if the run takes longer than `limit`, whatever its clock says.
    ///
    /// - `say`: told where the run stands; the process ends when it returns.
    ///
    /// # Panics
    /// If there can't be a thread.
    pub fn watch(&self, limit: Duration, say: impl FnOnce(String) + Send + 'static) {
        let progress = self.clone();
        let watching = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
            for _ in 0..limit.as_millis() / LOOK.as_millis() {
                #[expect(clippy::disallowed_methods, reason = "no event comes from what is stuck")]
                std::thread::sleep(LOOK);
            }
            say(progress.describe(limit));
            std::process::abort();
        });
        drop(watching.expect("a thread for the watchdog"));
    }

    fn describe(&self, limit: Duration) -> String {
        let now = Duration::from_micros(self.0.now_us.load(Ordering::Relaxed));
        let host = self.0.host.load(Ordering::Relaxed);
        let (limit, now) = (limit.as_secs(), now.as_secs_f64());
        format!("stuck: not done after {limit} s, in host {host} at {now:.3} s of its own time")
    }
}
