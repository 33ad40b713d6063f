//! Every decision, and the words it is made in.
//!
//! Pure: time is an argument, nothing here owns a task, a socket or a device. The same code runs in
//! the router, in the engine and under the simulator's virtual clock.

#![forbid(unsafe_code)]

pub mod batching;
pub mod request;
pub mod worker;

pub use request::{
    FinishReason, Generation, PromptLogprob, RequestId, SampledToken, Sampling, StopRules, TenantSalt,
    TokenLogprob,
};
pub use worker::{
    Address, Capacity, Fingerprint, Incarnation, Load, NodeState, Role, WorkerId, WorkerInfo,
};
