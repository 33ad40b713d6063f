//! One simulated process: a runtime of its own, whose clock is the simulation's.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, advance, sleep_until};
use tokio_util::task::TaskTracker;

/// A process, from its start to its end.
pub struct Process {
    runtime: Option<Runtime>,
    /// What its clock said at its start.
    born: Instant,
    /// When that was.
    started: Duration,
    /// Up to when it has run.
    reached: Duration,
    stopped: bool,
    over: Arc<AtomicBool>,
}

// === impl Process ===

impl Process {
    /// Starts a process at `now`; it is over when `main` is.
    ///
    /// # Panics
    /// If there can't be a runtime.
    #[must_use]
    pub fn start<F>(now: Duration, main: impl FnOnce(TaskTracker) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without I/O");
        let over = Arc::<AtomicBool>::default();
        let (done, tasks) = (over.clone(), TaskTracker::new());
        let born = {
            let _entered = runtime.enter();
            let main = main(tasks.clone());
            tasks.spawn(async move {
                main.await;
                done.store(true, Ordering::Relaxed);
            });
            Instant::now()
        };
        let runtime = Some(runtime);
        Self { runtime, born, started: now, reached: now, stopped: false, over }
    }

    /// Whether its main task has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Lets it run until its clock says `now`; a stopped one stays where it is.
    pub fn run_to(&mut self, now: Duration) {
        let Some(runtime) = self.runtime.as_ref().filter(|_| !self.stopped) else { return };
        self.reached = now;
        let until = self.born + (now - self.started);
        runtime.block_on(async { sleep_until(until).await });
    }

    /// Stops it where it is, as SIGSTOP does.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether it is stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Lets it go on at `now`: its clock has gone on meanwhile, and every timer is late.
    pub fn go_on(&mut self, now: Duration) {
        self.stopped = false;
        if let Some(runtime) = &self.runtime {
            let missed = now - self.reached;
            runtime.block_on(async { advance(missed).await });
        }
        self.reached = now;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
