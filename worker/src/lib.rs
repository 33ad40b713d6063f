//! What both workers share: a node around an engine, and serving both phases on one worker.
//!
//! A prefill worker and a decode worker differ in what they do with KV blocks. Everything else is
//! here once: loading the engine, life cycle, load reports, metrics, and the local path on which a
//! worker computes a prompt and generates without a hand-off.

#![forbid(unsafe_code)]

pub mod call;
pub mod config;
pub mod entrance;
pub mod error;
mod findable;
pub mod integrity;
pub mod local;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod report;

pub use call::{Call, Responses};
pub use config::WorkerConfig;
pub use entrance::{Ask, Entrance, Inside};
pub use error::WorkerError;
pub use integrity::Integrity;
pub use node::{KvHoldings, Node, NodeServices};
pub use peers::Peers;
