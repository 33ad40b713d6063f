//! One life of a worker, as far as it is known.

use std::sync::Arc;
use std::time::Instant;

use scheduler::WorkerView;
use tokio_util::sync::DropGuard;
use tracing::{info, warn};
use words::{Load, NodeState, WorkerInfo};

use crate::clock;

/// A life that is watched, or was.
pub(super) struct Tracked {
    /// What the placement sees; healthy from the first report on, while they come.
    pub(super) view: WorkerView,
    /// Whether membership has it.
    pub(super) listed: bool,
    /// Since when neither membership nor the worker itself tells of it.
    pub(super) departed: Option<Instant>,
    /// Ends its report stream when dropped; `None` while nobody looks for it.
    pub(super) stop: Option<DropGuard>,
}

/// What a change is worth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    None,
    /// Numbers: publish with the next lot.
    Load,
    /// Who is there and well: publish at once.
    Health,
}

// === impl Tracked ===

impl Tracked {
    /// A life that has not reported yet.
    pub(super) fn new(info: WorkerInfo) -> Self {
        let view = WorkerView { healthy: false, ..WorkerView::new(Arc::new(info)) };
        Self { view, listed: false, departed: None, stop: None }
    }

    /// Takes what membership says; of the state, what the worker itself says is newer.
    pub(super) fn list(&mut self, info: &WorkerInfo) {
        (self.listed, self.departed) = (true, None);
        let state = if self.view.healthy { self.view.info.state } else { info.state };
        let info = WorkerInfo { state, ..info.clone() };
        if *self.view.info != info {
            self.view.info = Arc::new(info);
        }
    }

    pub(super) fn reported(&mut self, state: NodeState, load: Load) -> News {
        let before = (self.view.healthy, self.view.info.state);
        self.view.observe(self.view.info.address.incarnation, load, clock::now());
        self.view.healthy = state != NodeState::Gone;
        if self.view.info.state != state {
            Arc::make_mut(&mut self.view.info).state = state;
        }
        if before == (self.view.healthy, state) {
            return News::Load;
        }
        self.departed = None;
        self.depart_if_unknown(clock::now());
        info!(life = %self.view.info.address.life(), ?state, "member reports");
        News::Health
    }

    pub(super) fn lost(&mut self, why: &str) -> News {
        let was_healthy = std::mem::replace(&mut self.view.healthy, false);
        if was_healthy {
            warn!(life = %self.view.info.address.life(), why, "member lost");
        }
        let left = self.depart_if_unknown(clock::now());
        if was_healthy || left { News::Health } else { News::None }
    }

    /// Notes that neither membership nor the worker tells of it any more. Whether that is news.
    pub(super) fn depart_if_unknown(&mut self, now: Instant) -> bool {
        let left = !self.listed && !self.view.healthy && self.departed.is_none();
        if left {
            info!(life = %self.view.info.address.life(), "no longer a member");
            self.departed = Some(now);
        }
        left
    }
}
