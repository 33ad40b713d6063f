//! The cluster harness: real processes, a real etcd, and clients to try them with.
//!
//! A test builds a [`Cluster`] (or one [`Node`]), talks to it through a [`Client`] or [`Grpc`], breaks
//! something, and ends with [`Cluster::assert_clean`]. Whatever was started dies with the test; if
//! the test fails, the last lines of every log are printed and the logs are kept.
//!
//! Helpers panic instead of returning errors: a test that cannot go on has failed, and the panic
//! is what makes the logs appear.

#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test harness: it reads the environment, and its tasks end with the test"
)]
#![allow(clippy::print_stderr, reason = "what a failed test shows")]

pub mod chaos;
pub mod client;
pub mod cluster;
pub mod etcd;
pub mod load;
pub mod model;
pub mod node;
pub mod oracle;
pub mod process;
pub mod security;
pub mod wait;
pub mod watch;

pub use client::grpc::{Generated, Grpc};
pub use client::http::{Answer, Client, Stream};
pub use cluster::{Cluster, ClusterBuilder, Single};
pub use etcd::Etcd;
pub use load::{Load, Report};
pub use model::TestModel;
pub use node::{Listening, Node, NodeSpec};
pub use process::Process;
pub use wait::{seconds_from_env, wait_until};
pub use watch::metrics::Metrics;
