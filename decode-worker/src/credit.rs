//! Credits: the promise that a request's KV blocks will be there when they arrive.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use engine::EngineHandle;
use kv_cache::{BlockPool, Reservation};
use tokio::sync::Mutex;
use worker::WorkerError;

/// How often the first in line looks again. A decode step takes longer, and only steps free blocks.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The line of requests that wait for blocks, first come first served.
///
/// Whoever stands here was let into the worker, which has set aside what the request may need; what it waits for are blocks
/// that others have longer than was thought, or whose readers have stalled. So the line is as short as the places are
/// few. A small prompt doesn't overtake a large one: the large one would never start.
#[derive(Debug, Default)]
pub(crate) struct Credits {
    line: Mutex<()>,
    waiting: AtomicU32,
}

/// The blocks that requests take, and those who are asked for them.
pub(crate) trait Lender {
    /// Where they come from.
    fn pool(&self) -> &BlockPool;
    /// Sequences that run, each of which will want one more.
    fn running(&self) -> u32;
    /// Asks for so many to be made free; 0 for no more.
    fn want(&self, blocks: u32);
}

/// Counts a request as waiting for as long as it lives.
struct Waiting<'a>(&'a AtomicU32);

/// Asks for blocks for as long as it lives.
struct Wanting<'a, L: Lender>(&'a L);

// === impl Credits ===

impl Credits {
    /// Requests in line.
    pub(crate) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for `blocks` blocks beside one more for each running sequence, which will grow into it: without
    /// that room, each new prompt would push an old one out.
    ///
    /// Dropping the future leaves the line. The caller's deadline bounds the wait.
    ///
    /// # Errors
    /// [`WorkerError::Invalid`] if the pool is too small for ever.
    pub(crate) async fn take(
        &self,
        lender: &impl Lender,
        blocks: u32,
    ) -> Result<Reservation, WorkerError> {
        let total = lender.pool().total_blocks();
        if blocks > total {
            let message = format!("the prompt takes {blocks} KV blocks, the worker has {total}");
            return Err(WorkerError::Invalid(message));
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let _turn = self.line.lock().await;
        let _wanting = Wanting(lender);
        loop {
            let room = lender.running().min(total.saturating_sub(blocks));
            if lender.pool().counts().available() >= blocks + room
                && let Ok(reservation) = lender.pool().reserve(blocks)
            {
                return Ok(reservation);
            }
            lender.want(blocks + room);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<L: Lender> Drop for Wanting<'_, L> {
    fn drop(&mut self) {
        self.0.want(0);
    }
}

// === impl EngineHandle ===

impl Lender for EngineHandle {
    fn pool(&self) -> &BlockPool {
        EngineHandle::pool(self)
    }

    fn running(&self) -> u32 {
        self.stats().running
    }

    fn want(&self, blocks: u32) {
        self.want_blocks(blocks);
    }
}

#[cfg(test)]
mod tests;
