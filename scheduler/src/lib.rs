//! Every decision: who is let in, where a request goes, who runs in the next step, and what things cost.
//!
//! Pure: time is an argument, nothing here owns a task, a socket or a device. The same code runs in
//! the router, in the engine and under the simulator's virtual clock.

#![forbid(unsafe_code)]

pub mod admission;
mod backlog;
pub mod batching;
pub mod cost;
pub mod partition;
pub mod placement;
pub mod slo;

pub use admission::{Forecast, Need, StreamLimits, StreamPermit, Streams, Turns};
pub use backlog::Backlog;
pub use partition::{Activity, PartitionLoad, PartitionTargets, Partitioner, Room};
pub use placement::{
    Assigned, Candidate, ClusterSnapshot, HandoffPolicy, LeastLoad, Ledger, Path, Placement,
    PlacementReason, PlacementRequest, Placer, Refusal, WorkerView,
};
pub use slo::{Goodput, SloTargets, SloWindow};
