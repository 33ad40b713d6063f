//! Load on a running cluster, and what it says about it; one engine against the hardware.
//!
//! A [`Workload`] is a row of sessions: what clients say, and in which order. [`load::run`] sends
//! them to any OpenAI endpoint, as a number of clients who wait for their answers or at a rate that
//! doesn't wait, and returns a [`Report`] that prints as a table and writes as JSON. [`engine`] needs
//! no cluster.

#![forbid(unsafe_code)]

pub mod ceilings;
pub mod engine;
pub mod kernels;
pub mod load;
pub mod models;
pub mod report;
pub mod server;
pub mod sse;
pub mod workload;

pub use ceilings::Ceilings;
pub use load::{Arrivals, LoadOptions};
pub use models::{ModelSource, Shape};
pub use report::{Report, Slo};
pub use server::{Server, ServerError, ServerOptions};
pub use workload::{Conversation, Fixed, Spread, Trace, Workload};
