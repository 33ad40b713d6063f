//! What every node shares: membership, life cycle, rpc, telemetry.
//!
//! A node composes these: it listens ([`rpc::Server`]), says where it is ([`membership`]), how busy
//! ([`report`]), watches the others ([`load`]), tells operators how it fares ([`telemetry`]) and
//! leaves in order ([`node::Lifecycle`]). Nothing here decides anything about requests.

#![forbid(unsafe_code)]

pub mod clock;
pub mod connections;
pub mod error;
pub mod http_server;
pub mod load;
pub mod membership;
pub mod node;
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
pub use http_server::{HttpServer, Protocol};
pub use load::LoadWatcher;
pub use membership::etcd::{EtcdConfig, EtcdMembership};
pub use membership::memory::MemoryMembership;
pub use membership::{Members, Membership, Registration, Standing};
pub use node::{Lifecycle, hangups, shutdown_signal};
pub use report::{Followers, ReportService, ReportSource};
