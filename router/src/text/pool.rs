//! Threads for the slow text work, with a queue that can be full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

/// Runs tokenizing and rendering away from the async threads.
///
/// At most `waiting_max` jobs wait or run at a time: a router that can't keep up says so at once,
/// instead of letting every request wait.
pub struct TextPool {
    threads: rayon::ThreadPool,
    waiting: Arc<AtomicUsize>,
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

/// Counts a job as long as it waits or runs.
struct Ticket(Arc<AtomicUsize>);

// === impl TextPool ===

impl TextPool {
    /// A pool of `threads` threads.
    ///
    /// # Errors
    /// If the threads can't be started.
    pub fn new(threads: usize, waiting_max: usize) -> std::io::Result<Self> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|index| format!("router-text-{index}"))
            .panic_handler(|_| tracing::error!("a tokenizing job panicked"))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Self { threads, waiting: Arc::default(), waiting_max })
    }

    /// Runs `work` on a thread of the pool. Dropping the future before the job has begun takes it
    /// out of the queue.
    ///
    /// # Errors
    /// [`PoolFull::Full`] at once if the queue is full; [`PoolFull::Panicked`] if `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolFull> {
        let ticket = self.ticket()?;
        let (sender, result) = oneshot::channel();
        self.threads.spawn_fifo(move || {
            if !sender.is_closed() {
                let result = work();
                // First: whoever has the result finds the queue without this job.
                drop(ticket);
                let _ = sender.send(result);
            }
        });
        result.await.map_err(|_| PoolFull::Panicked)
    }

    /// Jobs that wait or run.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn ticket(&self) -> Result<Ticket, PoolFull> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket(Arc::clone(&self.waiting));
        if before < self.waiting_max { Ok(ticket) } else { Err(PoolFull::Full) }
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

// === impl Ticket ===

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_recovers() {
        let pool = Arc::new(TextPool::new(1, 1).unwrap());
        let (release, wait) = sync_channel::<()>(0);
        let busy = {
            let pool = Arc::clone(&pool);
            let mut job = Box::pin(async move { pool.run(move || wait.recv()).await });
            assert!(futures::poll!(job.as_mut()).is_pending());
            job
        };
        assert_eq!(pool.run(|| 1).await, Err(PoolFull::Full));
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert_eq!(pool.run(|| 2).await, Ok(2));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_lives_on() {
        let pool = TextPool::new(1, 4).unwrap();
        assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(PoolFull::Panicked));
        assert_eq!(pool.run(|| 3).await, Ok(3));
    }
}
