//! What happens on one connection.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ClientAddress;

/// Whether a connection is at work, and since when not.
#[derive(Debug)]
pub struct Activity {
    client: ClientAddress,
    state: Mutex<State>,
    closed: CancellationToken,
}

/// A call on a connection, until dropped.
#[derive(Debug)]
pub struct Call(Arc<Activity>);

#[derive(Debug)]
struct State {
    calls: usize,
    idle_since: Instant,
}

// === impl Activity ===

impl Activity {
    pub(super) fn new(client: ClientAddress) -> Self {
        let state = State { calls: 0, idle_since: Instant::now() };
        Self { client, state: Mutex::new(state), closed: CancellationToken::new() }
    }

    /// Whom the connection comes from.
    #[must_use]
    pub fn client(&self) -> ClientAddress {
        self.client
    }

    /// Since when no call has been open on the connection; `None` while one is.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        (state.calls == 0).then_some(state.idle_since)
    }

    /// Notes that a call is open, until the value returned is dropped.
    #[must_use]
    pub fn call(self: &Arc<Self>) -> Call {
        self.state.lock().calls += 1;
        Call(Arc::clone(self))
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

// === impl Call ===

impl Drop for Call {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.calls -= 1;
        state.idle_since = Instant::now();
    }
}
