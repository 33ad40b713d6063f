//! Load reports and node states, in both directions.

use scheduler::{Incarnation, Load, NodeState};

use super::WireError;
use crate::v1;

// === impl NodeState ===

impl From<NodeState> for v1::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Starting => Self::Starting,
            NodeState::Serving => Self::Serving,
            NodeState::Draining => Self::Draining,
            NodeState::HoldingKv => Self::HoldingKv,
            NodeState::Gone => Self::Gone,
        }
    }
}

impl TryFrom<v1::NodeState> for NodeState {
    type Error = WireError;

    fn try_from(wire: v1::NodeState) -> Result<Self, WireError> {
        match wire {
            v1::NodeState::Unspecified => Err(WireError::invalid("state", "is unspecified")),
            v1::NodeState::Starting => Ok(Self::Starting),
            v1::NodeState::Serving => Ok(Self::Serving),
            v1::NodeState::Draining => Ok(Self::Draining),
            v1::NodeState::HoldingKv => Ok(Self::HoldingKv),
            v1::NodeState::Gone => Ok(Self::Gone),
        }
    }
}

// === impl LoadReport ===

impl v1::LoadReport {
    /// What a worker in `state` tells of its load.
    #[must_use]
    pub fn new(incarnation: Incarnation, state: NodeState, load: &Load) -> Self {
        Self {
            incarnation: incarnation.0,
            sequence: load.sequence,
            state: v1::NodeState::from(state).into(),
            running: load.running,
            waiting: load.waiting,
            queued_prefill_tokens: load.queued_prefill_tokens,
            context_tokens: load.context_tokens,
            free_blocks: load.free_blocks,
            total_blocks: load.total_blocks,
            prefill_tokens_per_s: load.prefill_tokens_per_s,
            decode_step_s: load.decode_step_s,
            orphan_blocks: load.orphan_blocks,
        }
    }

    /// The worker's state and load.
    ///
    /// # Errors
    /// [`WireError`] for an unknown state, a rate or time that isn't one, or more free blocks than
    /// there are.
    pub fn parts(&self) -> Result<(NodeState, Load), WireError> {
        if self.free_blocks > self.total_blocks {
            return Err(WireError::invalid("free_blocks", "is more than `total_blocks`"));
        }
        let load = Load {
            sequence: self.sequence,
            running: self.running,
            waiting: self.waiting,
            queued_prefill_tokens: self.queued_prefill_tokens,
            context_tokens: self.context_tokens,
            free_blocks: self.free_blocks,
            total_blocks: self.total_blocks,
            prefill_tokens_per_s: measured("prefill_tokens_per_s", self.prefill_tokens_per_s)?,
            decode_step_s: measured("decode_step_s", self.decode_step_s)?,
            orphan_blocks: self.orphan_blocks,
        };
        Ok((self.state().try_into()?, load))
    }
}

/// A measure that may be 0 for "not yet" but not negative or infinite: it would win or lose every
/// placement.
fn measured(field: &'static str, value: f64) -> Result<f64, WireError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(WireError::invalid(field, format!("is {value}")))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn load() -> Load {
        Load {
            sequence: 1,
            running: 2,
            waiting: 3,
            queued_prefill_tokens: 4,
            context_tokens: 5,
            free_blocks: 6,
            total_blocks: 7,
            prefill_tokens_per_s: 8.5,
            decode_step_s: 0.009,
            orphan_blocks: 10,
        }
    }

    #[rstest]
    fn a_load_report_survives_the_wire(
        #[values(
            NodeState::Starting,
            NodeState::Serving,
            NodeState::Draining,
            NodeState::HoldingKv,
            NodeState::Gone
        )]
        state: NodeState,
    ) {
        let report = v1::LoadReport::new(Incarnation(3), state, &load());
        assert_eq!(report.incarnation, 3);
        assert_eq!(report.parts(), Ok((state, load())));
    }

    #[rstest]
    #[case::no_state(|r: &mut v1::LoadReport| r.state = 0, "state")]
    #[case::state_of_the_future(|r: &mut v1::LoadReport| r.state = 99, "state")]
    #[case::negative_rate(|r: &mut v1::LoadReport| r.prefill_tokens_per_s = -1.0, "prefill_tokens_per_s")]
    #[case::endless_step(|r: &mut v1::LoadReport| r.decode_step_s = f64::INFINITY, "decode_step_s")]
    #[case::nan_step(|r: &mut v1::LoadReport| r.decode_step_s = f64::NAN, "decode_step_s")]
    #[case::too_free(|r: &mut v1::LoadReport| r.free_blocks = 8, "free_blocks")]
    fn a_bad_load_report_is_refused_by_field(
        #[case] spoil: fn(&mut v1::LoadReport),
        #[case] field: &str,
    ) {
        let mut report = v1::LoadReport::new(Incarnation(3), NodeState::Serving, &load());
        spoil(&mut report);
        assert_eq!(report.parts().unwrap_err().field, field);
    }
}
