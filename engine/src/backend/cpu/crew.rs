//! The threads of the CPU backend.

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::EngineError;

/// Multiply-adds below which a loop isn't worth sharing: handing work to another thread costs a
/// few microseconds, in which one core does about this many.
const SHARE_WORTH: usize = 100_000;

/// Tasks per thread of a shared loop: enough that a thread that comes late costs little.
pub(super) const TASKS_PER_THREAD: usize = 4;

/// A thread pool, or none where there is one thread.
#[derive(Debug)]
pub(super) struct Crew {
    pool: Option<ThreadPool>,
    threads: usize,
}

// === impl Crew ===

impl Crew {
    /// - `threads`: `None` for one per core.
    pub(super) fn new(threads: Option<usize>) -> Result<Self, EngineError> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or_else(cores).max(1);
        let build = || {
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("engine-cpu-{index}"))
                .build()
                .map_err(|error| EngineError::Device(error.to_string()))
        };
        let pool = (threads > 1).then(build).transpose()?;
        Ok(Self { pool, threads })
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs a whole step on the pool, so that its loops start without waking anyone.
    pub(super) fn install<R: Send>(&self, step: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(step),
            None => step(),
        }
    }

    /// Calls `task` with each of `0..tasks`, on all threads if `work` is worth it.
    ///
    /// - `work`: multiply-adds of all tasks together.
    pub(super) fn share(&self, tasks: usize, work: usize, task: impl Fn(usize) + Sync) {
        match &self.pool {
            Some(pool) if tasks > 1 && work >= SHARE_WORTH => {
                pool.install(|| halve(0, tasks, &task));
            }
            _ => (0..tasks).for_each(task),
        }
    }

    /// `task` of each of `0..tasks`, in order, computed on all threads if `work` is worth it.
    ///
    /// - `work`: as for [`Crew::share`].
    pub(super) fn map<T: Send>(
        &self,
        tasks: usize,
        work: usize,
        task: impl Fn(usize) -> T + Send + Sync,
    ) -> Vec<T> {
        match &self.pool {
            Some(pool) if tasks > 1 && work >= SHARE_WORTH => {
                pool.install(|| (0..tasks).into_par_iter().map(task).collect())
            }
            _ => (0..tasks).map(task).collect(),
        }
    }
}

fn halve(start: usize, end: usize, task: &(impl Fn(usize) + Sync)) {
    if end - start == 1 {
        return task(start);
    }
    let middle = start.midpoint(end);
    rayon::join(|| halve(start, middle, task), || halve(middle, end, task));
}
