//! Load reports, node states and what a worker publishes, in both directions.

use words::{Capacity, Fingerprint, HandoffTotals, Incarnation, Load, NodeState, Role, WorkerInfo};

use super::transfer::kv_layout;
use super::{WireError, non_empty, required};
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
            worker: None,
            promised_blocks: load.promised_blocks,
            wanted_blocks: load.wanted_blocks,
            output_tokens: load.output_tokens,
            handoffs: load.handoffs.count,
            handoff_tokens: load.handoffs.tokens,
            handoff_added_us: load.handoffs.added_us,
            generating: load.generating,
            prefill_tokens: load.prefill_tokens,
            kv: None,
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
            promised_blocks: self.promised_blocks,
            wanted_blocks: self.wanted_blocks,
            output_tokens: measured("output_tokens", self.output_tokens)?,
            handoffs: HandoffTotals {
                count: self.handoffs,
                tokens: self.handoff_tokens,
                added_us: self.handoff_added_us,
            },
            generating: self.generating,
            prefill_tokens: self.prefill_tokens,
        };
        Ok((self.state().try_into()?, load))
    }
}

// === impl WorkerInfo ===

impl v1::WorkerInfo {
    /// What a worker of the cluster `namespace` publishes.
    #[must_use]
    pub fn new(namespace: &str, info: &WorkerInfo) -> Self {
        let role = match info.role {
            Role::Prefill => v1::WorkerRole::Prefill,
            Role::Decode => v1::WorkerRole::Decode,
        };
        Self {
            namespace: namespace.to_owned(),
            address: Some((&info.address).into()),
            role: role.into(),
            fingerprint: Some((&info.fingerprint).into()),
            capacity: Some((&info.capacity).into()),
            transports: info.transports.clone(),
        }
    }

    /// The worker, in the state that it reports.
    ///
    /// # Errors
    /// [`WireError`] for a part that is missing or a role that isn't one.
    pub fn info(self, state: NodeState) -> Result<WorkerInfo, WireError> {
        let role = match self.role() {
            v1::WorkerRole::Prefill => Role::Prefill,
            v1::WorkerRole::Decode => Role::Decode,
            v1::WorkerRole::Unspecified => {
                return Err(WireError::invalid("role", "is unspecified"));
            }
        };
        Ok(WorkerInfo {
            address: required("address", self.address)?.try_into()?,
            role,
            state,
            fingerprint: required("fingerprint", self.fingerprint)?.try_into()?,
            capacity: required("capacity", self.capacity)?.into(),
            transports: self.transports,
        })
    }
}

// === impl Fingerprint ===

impl From<&Fingerprint> for v1::Fingerprint {
    fn from(fingerprint: &Fingerprint) -> Self {
        Self {
            model: fingerprint.model.clone(),
            weights: fingerprint.weights.clone(),
            kv_layout: fingerprint.kv_layout.to_string(),
            hash_version: fingerprint.hash_version,
            wire_version: fingerprint.wire_version,
        }
    }
}

impl TryFrom<v1::Fingerprint> for Fingerprint {
    type Error = WireError;

    fn try_from(wire: v1::Fingerprint) -> Result<Self, WireError> {
        // Two workers that say nothing would be taken for equal.
        non_empty("weights", &wire.weights)?;
        Ok(Self {
            model: wire.model,
            weights: wire.weights,
            kv_layout: kv_layout(&wire.kv_layout)?,
            hash_version: wire.hash_version,
            wire_version: wire.wire_version,
        })
    }
}

// === impl Capacity ===

impl From<&Capacity> for v1::Capacity {
    fn from(capacity: &Capacity) -> Self {
        Self {
            kv_blocks: capacity.kv_blocks,
            block_tokens: capacity.block_tokens,
            sequences_max: capacity.sequences_max,
            queue_max: capacity.queue_max,
            context_tokens_max: capacity.context_tokens_max,
        }
    }
}

impl From<v1::Capacity> for Capacity {
    fn from(wire: v1::Capacity) -> Self {
        Self {
            kv_blocks: wire.kv_blocks,
            block_tokens: wire.block_tokens,
            sequences_max: wire.sequences_max,
            queue_max: wire.queue_max,
            context_tokens_max: wire.context_tokens_max,
        }
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
    use kv_cache::{KvCodec, KvLayout, PageShape};
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
            promised_blocks: 11,
            wanted_blocks: 12,
            output_tokens: 13.5,
            handoffs: HandoffTotals { count: 14, tokens: 15, added_us: 16 },
            generating: 17,
            prefill_tokens: 18,
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

    fn info() -> WorkerInfo {
        let worker = words::WorkerId::from("d0");
        let uri = "http://127.0.0.1:1".to_owned();
        WorkerInfo {
            address: words::Address { worker, incarnation: Incarnation(7), uri },
            role: Role::Decode,
            state: NodeState::Draining,
            fingerprint: Fingerprint {
                model: "m".into(),
                weights: "aa".into(),
                kv_layout: KvLayout::whole(2, 2, PageShape::keys_and_values(16, 16), KvCodec::F32),
                hash_version: 1,
                wire_version: 2,
            },
            capacity: Capacity {
                kv_blocks: 1,
                block_tokens: 2,
                sequences_max: 3,
                queue_max: 4,
                context_tokens_max: 5,
            },
            transports: vec!["grpc".into()],
        }
    }

    #[test]
    fn what_a_worker_publishes_survives_the_wire() {
        let wire = v1::WorkerInfo::new("ns", &info());
        assert_eq!(wire.namespace, "ns");
        assert_eq!(wire.info(NodeState::Draining), Ok(info()));
    }

    #[rstest]
    #[case::no_address(|w: &mut v1::WorkerInfo| w.address = None, "address")]
    #[case::no_name(|w: &mut v1::WorkerInfo| w.address.as_mut().unwrap().worker_id.clear(), "worker_id")]
    #[case::no_role(|w: &mut v1::WorkerInfo| w.role = 0, "role")]
    #[case::role_of_the_future(|w: &mut v1::WorkerInfo| w.role = 9, "role")]
    #[case::no_fingerprint(|w: &mut v1::WorkerInfo| w.fingerprint = None, "fingerprint")]
    #[case::no_weights(|w: &mut v1::WorkerInfo| w.fingerprint.as_mut().unwrap().weights.clear(), "weights")]
    #[case::no_layout(|w: &mut v1::WorkerInfo| w.fingerprint.as_mut().unwrap().kv_layout.clear(), "kv_layout")]
    #[case::no_capacity(|w: &mut v1::WorkerInfo| w.capacity = None, "capacity")]
    fn a_worker_that_leaves_something_out_is_refused(
        #[case] spoil: fn(&mut v1::WorkerInfo),
        #[case] field: &str,
    ) {
        let mut wire = v1::WorkerInfo::new("ns", &info());
        spoil(&mut wire);
        assert_eq!(wire.info(NodeState::Serving).unwrap_err().field, field);
    }

    #[rstest]
    #[case::no_state(|r: &mut v1::LoadReport| r.state = 0, "state")]
    #[case::state_of_the_future(|r: &mut v1::LoadReport| r.state = 99, "state")]
    #[case::negative_rate(|r: &mut v1::LoadReport| r.prefill_tokens_per_s = -1.0, "prefill_tokens_per_s")]
    #[case::endless_step(|r: &mut v1::LoadReport| r.decode_step_s = f64::INFINITY, "decode_step_s")]
    #[case::nan_step(|r: &mut v1::LoadReport| r.decode_step_s = f64::NAN, "decode_step_s")]
    #[case::endless_output(|r: &mut v1::LoadReport| r.output_tokens = f64::INFINITY, "output_tokens")]
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
