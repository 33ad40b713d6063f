//! Text in, text out: HTTP and gRPC gateways, tokenizer, dispatch.
//!
//! The only crate that knows text and the only one that places requests. A request's way through
//! it: [`server`] takes it in, an API or [`grpc`] reads it into a [`gateway::TextRequest`]; [`Gateway`] renders and
//! tokenizes it ([`text`]), checks it against the model and the [`limits`](callers::limits), and hands it to
//! [`dispatch`]; the tokens that come back become text, cut at stop strings, in a
//! [`gateway::TextStream`] that the API writes in its own shape.
//!
//! A conversation becomes a prompt as the model's own template has it:
//!
//! ```
//! use model_folder::SpecialTokens;
//! use router::text::{ChatRender, ChatTemplate};
//! use serde_json::json;
//!
//! let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}\
//!               {% if add_generation_prompt %}<|assistant|>{% endif %}";
//! let template = ChatTemplate::from_source(source, SpecialTokens::default())?;
//! let messages = vec![json!({ "role": "user", "content": "What is a KV cache?" })];
//! let prompt = template.render(ChatRender { messages, ..ChatRender::default() })?;
//! assert_eq!(prompt, "<|user|>What is a KV cache?\n<|assistant|>");
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod api;
pub mod callers;
pub mod dispatch;
pub mod error;
pub mod gateway;
pub mod grpc;
mod http;
pub mod metrics;
pub mod served_model;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;
pub mod text;

pub use callers::limits::GatewayLimits;
pub use error::{RequestError, RouterError};
pub use gateway::{Gateway, GatewayConfig};
pub use metrics::RouterMetrics;
pub use served_model::{ModelCatalog, ServedModel, ServedModelConfig};
pub use server::{RouterConfig, serve};
