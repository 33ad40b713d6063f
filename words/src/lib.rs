//! What every part of the house calls things: a worker and how busy it is, a request, how its tokens are chosen,
//! what comes of it.
//!
//! Pure, and no decisions: whoever passes a word on need not know what is decided by it. What names a block or a
//! token of the model's vocabulary is [`kv_cache`]'s.

#![forbid(unsafe_code)]

mod fingerprint;
mod load;
mod request;
mod sampling;
mod token;
mod worker;

pub use fingerprint::{Fingerprint, chain_hasher};
pub use load::{HandoffTotals, Load};
pub use request::{ClientId, Generation, RequestId, StopRules, TenantSalt};
pub use sampling::Sampling;
pub use token::{FinishReason, PromptLogprob, SampledToken, TokenLogprob};
pub use worker::{
    Address, Capacity, Incarnation, Life, NodeState, Role, UnknownRole, WorkerId, WorkerInfo,
};
