//! An answer is from one set of weights.

use std::sync::Arc;

use parking_lot::Mutex;
use scheduler::Placement;
use words::Fingerprint;

/// What the answer to one client request is bound to. A clone is bound together with it.
#[derive(Clone, Debug, Default)]
pub struct Pin {
    bound: Arc<Mutex<Option<Fingerprint>>>,
    /// Whether a placement binds; else the first token does.
    early: bool,
}

// === impl Pin ===

impl Pin {
    /// A request of one part: bound by its first token, since another worker may do before.
    #[must_use]
    pub fn by_token() -> Self {
        Self::default()
    }

    /// A request of several parts, each placed by itself: bound by the first placement, lest two
    /// parts are answered from different weights.
    #[must_use]
    pub fn by_placement() -> Self {
        Self { early: true, ..Self::default() }
    }

    /// Places a part by `place`, which is given what the answer is bound to.
    pub(super) fn place<E>(
        &self,
        place: impl FnOnce(Option<&Fingerprint>) -> Result<Placement, E>,
    ) -> Result<Placement, E> {
        let mut bound = self.bound.lock();
        let placement = place(bound.as_ref())?;
        if self.early {
            bound.get_or_insert_with(|| placement.fingerprint.clone());
        }
        Ok(placement)
    }

    /// A worker's first token, or scores of the prompt, go to the client: from now on nobody else's
    /// do.
    pub(super) fn bind(&self, fingerprint: &Fingerprint) {
        self.bound.lock().get_or_insert_with(|| fingerprint.clone());
    }

    pub(super) fn is_bound(&self) -> bool {
        self.bound.lock().is_some()
    }
}
