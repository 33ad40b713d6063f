//! What every part of the house calls things: a worker and how busy it is, a request, how its tokens are chosen,
//! what comes of it.
//!
//! Pure, and no decisions: whoever passes a word on need not know what is decided by it. What names a block or a
//! token of the model's vocabulary is [`kv_cache`]'s.
//!
//! A request that was interrupted goes on elsewhere with the tokens it has:
//!
//! ```
//! use words::{ClientId, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt};
//!
//! let work = Generation {
//!     id: RequestId("chat-1".into()),
//!     prompt: [3, 14, 15].into(),
//!     generated: [].into(),
//!     choices: vec![0],
//!     sampling: Sampling::greedy(),
//!     stop: StopRules { max_tokens: 16, ..StopRules::default() },
//!     prompt_logprobs: None,
//!     salt: TenantSalt::default(),
//!     client: ClientId::default(),
//!     targets: Targets::default(),
//! };
//! let rest = Generation { generated: [92, 65].into(), ..work.clone() };
//! assert_eq!(rest.context(), [3, 14, 15, 92, 65]);
//! assert_eq!(rest.total_tokens_max(), work.total_tokens_max());
//! ```

#![forbid(unsafe_code)]

mod fingerprint;
mod kv_news;
mod load;
mod request;
mod sampling;
mod targets;
mod token;
mod worker;

pub use fingerprint::{Fingerprint, chain_hasher};
pub use kv_news::{KvNews, KvNewsKind, KvRun};
pub use load::{HandoffTotals, Load};
pub use request::{ClientId, Generation, RequestId, StopRules, TenantSalt};
pub use sampling::Sampling;
pub use targets::{TIME_MAX, Targets};
pub use token::{FinishReason, PromptLogprob, SampledToken, TokenLogprob};
pub use worker::{
    Address, Capacity, Incarnation, Life, NodeState, Role, UnknownRole, WorkerId, WorkerInfo,
};
