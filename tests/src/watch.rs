//! What nodes show: metrics, traces, and what a person sees in a terminal.

pub mod collector;
pub mod metrics;
pub mod terminal;
