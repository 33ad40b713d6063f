//! Every decision: who is let in, where a request goes, who runs in the next step, and what things cost.
//!
//! Pure: time is an argument, nothing here owns a task, a socket or a device. The same code runs in
//! the router, in the engine and under the simulator's virtual clock.
//!
//! A router asks where a request goes, and is told why:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use scheduler::{ClusterSnapshot, LeastLoad, Path, PlacementRequest, Placer, WorkerView};
//! use words::{
//!     Address, Capacity, Fingerprint, Incarnation, Load, NodeState, Role, WorkerInfo,
//! };
//!
//! const LAYOUT: &str = "layers=2 kv_heads=2 head_dim=16 block_tokens=16 dtype=f32";
//! let worker = |name: &str, role| {
//!     let incarnation = Incarnation(1);
//!     let info = WorkerInfo {
//!         address: Address { worker: name.into(), incarnation, uri: format!("http://{name}:7001") },
//!         role,
//!         state: NodeState::Serving,
//!         fingerprint: Fingerprint {
//!             model: "demo".into(),
//!             weights: "5eed".into(),
//!             kv_layout: LAYOUT.parse().expect("a layout"),
//!             hash_version: 1,
//!             wire_version: 1,
//!         },
//!         capacity: Capacity {
//!             kv_blocks: 1000,
//!             block_tokens: 16,
//!             sequences_max: 64,
//!             queue_max: 64,
//!             context_tokens_max: 8192,
//!         },
//!         transports: vec!["grpc".into()],
//!     };
//!     let mut view = WorkerView::new(Arc::new(info));
//!     let load = Load { sequence: 1, free_blocks: 1000, total_blocks: 1000, ..Load::default() };
//!     view.observe(incarnation, load, Instant::now());
//!     view
//! };
//! let workers = vec![worker("p1", Role::Prefill), worker("d1", Role::Decode)];
//! let cluster = ClusterSnapshot { workers, ..ClusterSnapshot::default() };
//! let smallest = PlacementRequest::smallest("demo", 0);
//! let request = PlacementRequest { context_tokens: 4000, total_tokens_max: 4100, ..smallest };
//!
//! let placed = LeastLoad::default().place(&cluster, &request, Instant::now())?;
//! assert_eq!(placed.decode.worker, "d1".into());
//! assert_eq!((placed.path, placed.prefill[0].worker.clone()), (Path::Handoff, "p1".into()));
//! println!("{:?}: the first token in {:.3} s", placed.reason, placed.estimated_ttft_s);
//! # Ok::<_, scheduler::Refusal>(())
//! ```

#![forbid(unsafe_code)]

pub mod admission;
mod backlog;
pub mod batching;
pub mod cost;
pub mod partition;
pub mod placement;
mod slo;

pub use admission::{Forecast, Need, StreamLimits, StreamPermit, Streams, Turns};
pub use backlog::Backlog;
pub use partition::{EngineActivity, PartitionLoad, PartitionTargets, Partitioner, Room};
pub use placement::{
    Assigned, ClusterSnapshot, HandoffPolicy, LeastLoad, Ledger, Notes, Path, Placement,
    PlacementReason, PlacementRequest, Placer, Refusal, WorkerView,
};
pub use slo::SloTargets;
