//! Threads for the slow text work, with a queue that can be full and that is fair.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use words::ClientId;

use super::effort::Cancelled;
use super::template;
use queue::Queue;

mod queue;

/// Texts up to this size have a thread of their own: tokenized in 50 ms, they don't wait for those
/// that take a second.
const SMALL_BYTES_MAX: usize = 64 << 10;

/// Stack of a thread: what a template may need, and what the thread does before.
const STACK_BYTES: usize = template::STACK_BYTES + (2 << 20);

/// Runs tokenizing and rendering away from the async threads.
///
/// At most `waiting_max` jobs wait or run at a time: a router that can't keep up says so at once,
/// instead of letting every request wait. Clients take turns, by bytes; of one client's jobs the
/// smallest is next.
pub struct TextPool {
    board: Arc<JobBoard>,
    waiting_max: usize,
}

/// The pool didn't do a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFull {
    /// Too many jobs wait already.
    #[error("too many prompts are waiting to be tokenized")]
    Full,
    /// The job panicked; it has been logged.
    #[error("tokenizing failed")]
    Panicked,
}

/// Does the work, and returns what hands over its result.
type Job = Box<dyn FnOnce() -> Delivery + Send>;
type Delivery = Box<dyn FnOnce() + Send>;

struct JobBoard {
    state: Mutex<State>,
    /// Rung when a job comes, and when the pool ends.
    bell: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue<Job>,
    running: usize,
    is_over: bool,
}

/// Takes a job out of the queue, or stops it, when nobody waits for it any more.
struct Waiting<'a> {
    pool: &'a TextPool,
    client: ClientId,
    number: u64,
    cancelled: Cancelled,
}

// === impl TextPool ===

impl TextPool {
    /// A pool of `threads` threads, and one more for small texts.
    ///
    /// # Errors
    /// If the threads can't be started.
    pub fn new(threads: usize, waiting_max: usize) -> std::io::Result<Self> {
        let board = Arc::new(JobBoard { state: Mutex::default(), bell: Condvar::new() });
        // Made first: dropped, it ends those that could be started.
        let pool = Self { board: Arc::clone(&board), waiting_max };
        for index in 0..=threads.max(1) {
            let board = Arc::clone(&board);
            let bytes_max = if index == 0 { SMALL_BYTES_MAX } else { usize::MAX };
            let thread = std::thread::Builder::new().name(format!("router-text-{index}"));
            thread.stack_size(STACK_BYTES).spawn(move || board.work(bytes_max))?;
        }
        Ok(pool)
    }

    /// Runs `work` of `client`, on a text of `bytes`, on a thread of the pool. Dropping the future
    /// takes the job out of the queue, or tells it that it may stop.
    ///
    /// # Errors
    /// [`PoolFull::Full`] at once if the queue is full; [`PoolFull::Panicked`] if `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        client: ClientId,
        bytes: usize,
        work: impl FnOnce(&Cancelled) -> T + Send + 'static,
    ) -> Result<T, PoolFull> {
        let (sender, result) = oneshot::channel();
        let cancelled = Cancelled::default();
        let seen = cancelled.clone();
        let job: Job = Box::new(move || {
            let done = catch_unwind(AssertUnwindSafe(|| work(&seen)));
            if done.is_err() {
                tracing::error!("a tokenizing job panicked");
            }
            // Of one that panicked the sender is dropped: so its waiter learns of it.
            Box::new(move || drop(done.map(|done| sender.send(done))))
        });
        let number = self.board.push(client, bytes, job, self.waiting_max)?;
        let _waiting = Waiting { pool: self, client, number, cancelled };
        result.await.map_err(|_| PoolFull::Panicked)
    }

    /// Jobs that wait or run.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.board.state.lock().jobs()
    }
}

impl Drop for TextPool {
    fn drop(&mut self) {
        self.board.state.lock().is_over = true;
        // Not waited for: a thread that is at work ends after its job.
        self.board.bell.notify_all();
    }
}

impl std::fmt::Debug for TextPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextPool")
            .field("waiting", &self.waiting())
            .field("waiting_max", &self.waiting_max)
            .finish_non_exhaustive()
    }
}

// === impl JobBoard ===

impl JobBoard {
    fn push(
        &self,
        client: ClientId,
        bytes: usize,
        job: Job,
        waiting_max: usize,
    ) -> Result<u64, PoolFull> {
        let mut state = self.state.lock();
        if state.jobs() >= waiting_max {
            return Err(PoolFull::Full);
        }
        let number = state.queue.push(client, bytes, job);
        // All: the one that wakes might be the one that takes small jobs only.
        self.bell.notify_all();
        Ok(number)
    }

    /// Does jobs of up to `bytes_max` until the pool ends.
    fn work(&self, bytes_max: usize) {
        let mut state = self.state.lock();
        while !state.is_over {
            let Some(job) = state.queue.pop(bytes_max) else {
                self.bell.wait(&mut state);
                continue;
            };
            state.running += 1;
            drop(state);
            let deliver = job();
            // First: whoever has the result finds the pool without this job.
            self.state.lock().running -= 1;
            deliver();
            state = self.state.lock();
        }
    }
}

// === impl State ===

impl State {
    fn jobs(&self) -> usize {
        self.queue.len() + self.running
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.cancelled.set();
        let job = self.pool.board.state.lock().queue.remove(self.client, self.number);
        // Outside of the lock: what it holds may be large.
        drop(job);
    }
}

#[cfg(test)]
mod tests;
