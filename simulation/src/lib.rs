//! A whole cluster in virtual time, on a network that fails by a seed.
//!
//! What runs is the real thing: dispatch, membership and its client of etcd, report streams, credits,
//! sender and receiver, both workers' services and the engine's loop. What isn't: the model, which a
//! [`script`](nodes::script) stands in for, the [`network`], etcd's server ([`nodes::etcd()`]), and the
//! time. A [`plan`] says what a seed stands for; a [`world`] runs it; [`checks`] say what must never be,
//! and what a run came through.
//!
//! One process runs one seed, and the same seed runs the same way: see [`entropy`].

#![deny(unsafe_code)]

pub mod checks;
pub mod entropy;
pub mod network;
pub mod nodes;
pub mod plan;
pub mod planted;
pub mod strangers;
pub mod watchdog;
pub mod world;
