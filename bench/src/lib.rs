//! Load on a running cluster, and what it says about it; one engine against the hardware.
//!
//! A [`Workload`] is a row of sessions: what clients say, and in which order. [`load::run`] sends
//! them to any OpenAI endpoint, as a number of clients who wait for their answers or at rates that
//! don't wait, and returns a [`ServeReport`] that prints as a table and as a page with plots.
//! [`engine`] and [`kernels`] need no cluster, and [`simulate`] no machine. A [`Document`] keeps a report, and a [`Comparison`] lays
//! two side by side.

#![forbid(unsafe_code)]

pub mod ceilings;
pub mod compare;
pub mod document;
pub mod energy;
pub mod engine;
pub mod figure;
pub mod kernels;
pub mod load;
pub mod models;
mod plot;
pub mod server;
pub mod simulate;
pub mod workload;

pub use ceilings::Ceilings;
pub use compare::Comparison;
pub use document::{Body, Document};
pub use load::{Arrivals, LoadOptions, Rates, Report, ServeReport, Slo, Summary};
pub use models::{ModelSource, Shape};
pub use server::{Server, ServerError, ServerOptions};
pub use simulate::{SimulateOptions, SimulateReport};
pub use workload::{Conversation, Fixed, Spread, Trace, Workload};
