//! Placers that don't forgive, or don't mind.

use std::collections::BTreeSet;
use std::time::Instant;

use parking_lot::Mutex;
use scheduler::{ClusterSnapshot, Placement, PlacementRequest, Placer, Refusal};
use words::WorkerId;

/// Remembers every worker that failed a request, by name, and chooses among the others.
pub struct Eternal<P> {
    inner: P,
    excluded: Mutex<BTreeSet<WorkerId>>,
}

/// Places an answer that is bound to one set of weights on whatever there is.
pub struct Unbound<P>(pub P);

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

// === impl Unbound ===

impl<P: Placer> Placer for Unbound<P> {
    fn place(
        &self,
        view: &ClusterSnapshot,
        request: &PlacementRequest<'_>,
        now: Instant,
    ) -> Result<Placement, Refusal> {
        self.0.place(view, &PlacementRequest { fingerprint: None, ..*request }, now)
    }
}
