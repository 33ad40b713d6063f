//! Work in flight, counted.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::ClusterError;

/// Lets work in until it is closed, and knows how much there is.
#[derive(Clone, Debug)]
pub struct Gate {
    inside: TaskTracker,
    work: CancellationToken,
}

/// One piece of work in flight, for as long as this lives.
#[derive(Debug)]
#[must_use = "work counts as in flight for as long as its permit lives"]
pub struct Permit {
    cancelled: CancellationToken,
    _inside: TaskTrackerToken,
}

// === impl Gate ===

impl Gate {
    /// An open gate whose work is cancelled with `parent`.
    #[must_use]
    pub fn new(parent: &CancellationToken) -> Self {
        Self { inside: TaskTracker::new(), work: parent.child_token() }
    }

    /// Lets one piece of work in.
    ///
    /// # Errors
    /// [`ClusterError::Draining`] once the gate is closed.
    pub fn enter(&self) -> Result<Permit, ClusterError> {
        // First the token, then the question: who closes the gate and sees nobody inside is right.
        let _inside = self.inside.token();
        if self.inside.is_closed() {
            return Err(ClusterError::Draining);
        }
        Ok(Permit { cancelled: self.work.child_token(), _inside })
    }

    /// Lets nothing more in.
    pub fn close(&self) {
        self.inside.close();
    }

    /// Whether work is still let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.inside.is_closed()
    }

    /// Pieces of work in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inside.len()
    }

    /// Waits until the gate is closed and nothing is in flight.
    pub async fn idle(&self) {
        self.inside.wait().await;
    }

    /// Cancels all work in flight.
    pub fn cancel(&self) {
        self.work.cancel();
    }
}

// === impl Permit ===

impl Permit {
    /// Cancelled when this work must end before it is done. Tokens for its parts are children of it.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }
}
