//! OpenAI's API.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::Gateway;

mod chat;
mod completions;
pub(crate) mod fields;
mod logprobs;
mod messages;
pub(crate) mod shapes;

pub(crate) use fields::ignored::Ignored;
pub(crate) use messages::MessageRules;

/// Its routes.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
}
