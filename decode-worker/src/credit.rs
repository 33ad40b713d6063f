//! Credits: the promise that a request's KV blocks will be there when they arrive.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kv_cache::{BlockPool, Reservation};
use tokio::sync::Mutex;
use worker::WorkerError;

/// How often the first in line looks again. A decode step takes longer, and only steps free blocks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The line of requests that wait for blocks, first come first served.
///
/// A small prompt doesn't overtake a large one: the large one would never start.
#[derive(Debug)]
pub(crate) struct Credits {
    line: Mutex<()>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

/// Counts a request as waiting for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

// === impl Credits ===

impl Credits {
    pub(crate) fn new(waiting_max: usize) -> Self {
        Self { line: Mutex::new(()), waiting: AtomicUsize::new(0), waiting_max }
    }

    /// Requests in line.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed) as u32
    }

    /// Waits for `blocks` blocks beside one more for each of `running` sequences, which will grow
    /// into it: without that room, each new prompt would push an old one out.
    ///
    /// Dropping the future leaves the line. The caller's deadline bounds the wait.
    ///
    /// # Errors
    /// [`WorkerError::Busy`] if the line is full, [`WorkerError::Invalid`] if the pool is too small
    /// for ever.
    pub(crate) async fn take(
        &self,
        pool: &BlockPool,
        blocks: u32,
        running: impl Fn() -> u32,
    ) -> Result<Reservation, WorkerError> {
        if blocks > pool.total_blocks() {
            let total = pool.total_blocks();
            let message = format!("the prompt takes {blocks} KV blocks, the worker has {total}");
            return Err(WorkerError::Invalid(message));
        }
        let _waiting = self.join_line()?;
        let _turn = self.line.lock().await;
        loop {
            let counts = pool.counts();
            let room = running().min(pool.total_blocks().saturating_sub(blocks));
            if counts.available() >= blocks + room
                && let Ok(reservation) = pool.reserve(blocks)
            {
                return Ok(reservation);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn join_line(&self) -> Result<Waiting<'_>, WorkerError> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if before >= self.waiting_max {
            return Err(WorkerError::Busy(format!("{before} requests wait for KV blocks already")));
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
