//! OpenAI's APIs.

mod chat;
mod chunks;
mod completions;
pub(crate) mod errors;
mod fields;
mod logprobs;
mod usage;

pub(crate) use chat::Chat;
pub(crate) use chat::messages::MessageRules;
pub(crate) use completions::Completions;
