//! What every node shares: membership, life cycle, rpc, telemetry.
//!
//! A node composes these: it listens ([`rpc::Server`]), says where it is ([`membership`]), how busy
//! ([`report`]), watches the others ([`load`]), tells operators how it fares ([`telemetry`]) and
//! leaves in order ([`node::Lifecycle`]). Nothing here decides anything about requests.
//!
//! Workers publish themselves, and whoever watches sees them come and go:
//!
//! ```
//! use cluster::{MemoryMembership, Membership as _};
//! use words::{Address, Capacity, Fingerprint, Incarnation, NodeState, Role, WorkerInfo};
//!
//! const LAYOUT: &str = "layers=2 kv_heads=2 head_dim=16 block_tokens=16 dtype=f32";
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let membership = MemoryMembership::new();
//! let mut view = membership.view();
//! let info = WorkerInfo {
//!     address: Address {
//!         worker: "d1".into(),
//!         incarnation: Incarnation(1),
//!         uri: "http://127.0.0.1:7002".into(),
//!     },
//!     role: Role::Decode,
//!     state: NodeState::Serving,
//!     fingerprint: Fingerprint {
//!         model: "demo".into(),
//!         weights: "5eed".into(),
//!         kv_layout: LAYOUT.parse().expect("a layout"),
//!         hash_version: 1,
//!         wire_version: 1,
//!     },
//!     capacity: Capacity::default(),
//!     transports: vec!["grpc".into()],
//! };
//! let registration = membership.register(info).await?;
//! let there = view.wait_for(|members| members.of(Role::Decode).count() == 1).await?;
//! assert!(there.stale_since.is_none());
//! drop(there);
//!
//! registration.deregister().await;
//! view.wait_for(|members| members.workers.is_empty()).await?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod clock;
pub mod connections;
pub mod error;
pub mod http_server;
pub mod load;
pub mod membership;
pub mod node;
pub mod patience;
pub mod prefixes;
pub mod report;
pub mod retry;
pub mod rpc;
pub mod security;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod throttled;

pub use error::ClusterError;
pub use error::code::ErrorCode;
pub use error::shortage::Shortage;
pub use http_server::{HttpServer, Protocol};
pub use load::LoadWatcher;
pub use membership::etcd::{EtcdConfig, EtcdMembership};
pub use membership::memory::MemoryMembership;
pub use membership::{Members, Membership, Registration, Standing};
pub use node::{Lifecycle, hangups, shutdown_signal};
pub use prefixes::Prefixes;
pub use report::{Followers, ReportService, ReportSource};
