//! What time it is for an engine.

use std::time::Instant;

/// This instant: the system's, unless the engine is driven by a runtime whose clock is held.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
