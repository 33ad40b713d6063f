//! A placer that doesn't forgive.

use std::collections::BTreeSet;
use std::time::Instant;

use parking_lot::Mutex;
use scheduler::{ClusterSnapshot, Placement, PlacementRequest, Placer, Refusal, WorkerId};

/// Remembers every worker that failed a request, by name, and chooses among the others.
pub struct Eternal<P> {
    inner: P,
    excluded: Mutex<BTreeSet<WorkerId>>,
}

// === impl Eternal ===

impl<P: Placer> Eternal<P> {
    /// `inner`, without forgiveness.
    pub fn new(inner: P) -> Self {
        Self { inner, excluded: Mutex::default() }
    }
}

impl<P: Placer> Placer for Eternal<P> {
    fn place(
        &self,
        view: &ClusterSnapshot,
        request: &PlacementRequest<'_>,
        now: Instant,
    ) -> Result<Placement, Refusal> {
        let mut excluded = self.excluded.lock();
        let lost = view.workers.iter().filter(|it| !it.healthy).map(|it| &it.info.address.worker);
        excluded.extend(lost.cloned());
        let forgiving =
            view.workers.iter().filter(|it| !excluded.contains(&it.info.address.worker));
        let view = ClusterSnapshot { workers: forgiving.cloned().collect() };
        self.inner.place(&view, request, now)
    }
}
