//! What clients may ask for over HTTP, and how they are answered.
//!
//! An API is an [`Api`]: it reads a request and writes the replies. All that is between is the same for each of them and
//! is in [`endpoint`]. A new one is a folder beside [`openai`], and a row in [`ENDPOINTS`].

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, post};

use crate::Gateway;
use endpoint::Api;

pub(crate) mod endpoint;
mod explain;
pub(crate) mod ignored;
pub(crate) mod openai;
pub(crate) mod relay;
mod sse;

/// One path that is served.
pub(crate) struct Endpoint {
    pub(crate) path: &'static str,
    /// What it does, for who comes without knowing.
    pub(crate) about: &'static str,
    route: fn() -> MethodRouter<Arc<Gateway>>,
}

/// All of them.
pub(crate) const ENDPOINTS: [Endpoint; 3] =
    [Endpoint::of::<openai::Chat>(), Endpoint::of::<openai::Completions>(), explain::ENDPOINT];

/// Their routes.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    ENDPOINTS.iter().fold(Router::new(), |router, it| router.route(it.path, (it.route)()))
}

// === impl Endpoint ===

impl Endpoint {
    const fn of<A: Api>() -> Self {
        Self { path: A::PATH, about: A::ABOUT, route: || post(endpoint::answer::<A>) }
    }
}
