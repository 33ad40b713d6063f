//! Whole models on a GPU: against the CPU, against transformers, against themselves.
//!
//! Ignored unless asked for, as `cargo xtask test` does where there is a GPU. A GPU computes with 16-bit
//! activations, so its logits are compared by relative error, `|out - reference| / |reference|` of a
//! row, and its tokens are equal but for ties: where the reference's logits of the two tokens are
//! nearer to each other than the two computations are.
#![allow(clippy::print_stdout, reason = "what was measured")]

mod batches;
mod compare;
mod engines;
mod goldens;
mod greedy;
mod logits;
mod models;
mod refusals;
mod region;
mod sampling;

#[path = "../support/goldens.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod files;
#[path = "../support/handoff.rs"]
mod handoff;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod support;
