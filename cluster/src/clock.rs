//! What time it is for a node.

use std::time::Instant;

/// This instant on the runtime's clock, which is the system's unless a simulation holds it.
///
/// For deadlines and ages on a request's path, so that all of them can run in virtual time. Outside
/// of a runtime it is the system's clock, too.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
