//! A whole cluster in virtual time, on a network that fails by a seed.
//!
//! What runs is the real thing: dispatch, membership and its client of etcd, report streams, credits,
//! sender and receiver, both workers' services and the engine's loop. What isn't: the model, which a
//! [`script`] stands in for, the [`network`], [`etcd`]'s server, and the time. A [`plan`] says what a
//! seed stands for; a [`world`] runs it; [`ledger`], [`memory`] and [`checks`] say what must never be.
//!
//! One process runs one seed, and the same seed runs the same way: see [`entropy`].

#![deny(unsafe_code)]

pub mod checks;
pub mod client;
pub mod entropy;
pub mod etcd;
pub mod host;
pub mod ledger;
pub mod memory;
pub mod network;
pub mod nodes;
pub mod plan;
pub mod planted;
pub mod script;
pub mod stranger;
pub mod world;
