//! Where a request would go, and why, for those who ask without sending it.

use scheduler::Placement;
use scheduler::placement::Candidate;

use super::DispatchError;

/// What would be done with a request now.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Where it would go, or why it would be refused.
    pub decision: Result<Placement, DispatchError>,
    /// Every worker, once for each part it was considered in.
    pub candidates: Vec<Candidate>,
}
