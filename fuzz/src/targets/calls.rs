//! What clients send.

pub(super) mod chat;
pub(super) mod completions;
pub(super) mod http_call;
pub(super) mod inference;
pub(super) mod text;
