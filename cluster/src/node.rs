//! A node's life: starting, serving, draining, holding KV, gone.
//!
//! One [`Lifecycle`] per node, cloned into everything that must know. Its tokens form a tree:
//! [`Lifecycle::stopped`] is the root, under it hangs all work, under that each piece of work
//! ([`Permit::cancelled`]). Draining closes the [`Gate`] and waits; only when its deadline passes is
//! work cancelled.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use words::{Incarnation, NodeState};

mod gate;
mod signal;

pub use gate::{Gate, Permit};
pub use signal::{hangups, shutdown_signal};

/// How long cancelled work has to wind up before it is left behind.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// A node's state and what follows from it. A clone is another handle to the same life.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: watch::Sender<NodeState>,
    gate: Gate,
    draining: CancellationToken,
    stopped: CancellationToken,
    tasks: TaskTracker,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All work was finished.
    Clean,
    /// The deadline came first; this many pieces of work were cancelled.
    Cut {
        /// Pieces of work in flight at the deadline.
        cancelled: usize,
    },
}

// === impl Lifecycle ===

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// A node that starts.
    #[must_use]
    pub fn new() -> Self {
        let stopped = CancellationToken::new();
        let inner = Inner {
            state: watch::Sender::new(NodeState::Starting),
            gate: Gate::new(&stopped),
            draining: stopped.child_token(),
            stopped,
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The state now.
    #[must_use]
    pub fn state(&self) -> NodeState {
        *self.inner.state.borrow()
    }

    /// The state; changes wake the receiver.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<NodeState> {
        self.inner.state.subscribe()
    }

    /// Counts work in flight; open until the node drains.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// Cancelled when the node begins to drain, or stops without.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.inner.draining
    }

    /// Cancelled when the node is gone: whatever still runs must end.
    #[must_use]
    pub fn stopped(&self) -> &CancellationToken {
        &self.inner.stopped
    }

    /// The node's own tasks, waited for in [`Lifecycle::stop`].
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    /// Everything is loaded: work may come. `false` if the node is past that.
    pub fn serve(&self) -> bool {
        self.advance(NodeState::Serving)
    }

    /// Takes no new work and waits for what there is, until `within` has passed; then cancels it.
    pub async fn drain(&self, within: Duration) -> Drained {
        self.advance(NodeState::Draining);
        self.inner.draining.cancel();
        let gate = &self.inner.gate;
        gate.close();
        if timeout(within, gate.idle()).await.is_ok() {
            return Drained::Clean;
        }
        let cancelled = gate.in_flight();
        warn!(cancelled, "drain deadline passed: cancelling work");
        gate.cancel();
        if timeout(CANCEL_TIMEOUT, gate.idle()).await.is_err() {
            warn!(left = gate.in_flight(), "cancelled work does not end: leaving it behind");
        }
        Drained::Cut { cancelled }
    }

    /// Holds on to KV blocks that others may still fetch, until `done` or `within` has passed.
    pub async fn hold_kv(&self, done: impl Future<Output = ()>, within: Duration) {
        if self.advance(NodeState::HoldingKv) && timeout(within, done).await.is_err() {
            info!("KV held for as long as was agreed: letting go");
        }
    }

    /// Is gone: cancels everything and waits, until `within` has passed, for the node's tasks.
    /// `false` if some did not end.
    pub async fn stop(&self, within: Duration) -> bool {
        self.advance(NodeState::Gone);
        self.inner.gate.close();
        self.inner.stopped.cancel();
        self.inner.tasks.close();
        timeout(within, self.inner.tasks.wait()).await.is_ok()
    }

    /// Moves on to a later state; a life has no way back.
    fn advance(&self, to: NodeState) -> bool {
        let moved = self.inner.state.send_if_modified(|state| {
            let forward = rank(to) > rank(*state);
            if forward {
                *state = to;
            }
            forward
        });
        if moved {
            info!(state = ?to, "node");
        }
        moved
    }
}

/// The incarnation of a process that starts now: microseconds since 1970, so that a later life is
/// newer. Only mostly so, for clocks are set back: who is there is told by the data plane, and the
/// number decides between lives that both are.
#[must_use]
pub fn incarnation(now: SystemTime) -> Incarnation {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    Incarnation(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

fn rank(state: NodeState) -> u8 {
    match state {
        NodeState::Starting => 0,
        NodeState::Serving => 1,
        NodeState::Draining => 2,
        NodeState::HoldingKv => 3,
        NodeState::Gone => 4,
    }
}

#[cfg(test)]
mod tests;
