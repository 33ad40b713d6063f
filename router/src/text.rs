//! Text to tokens and back.
//!
//! The only place in the house that knows text: the chat template renders a conversation, the
//! tokenizer turns text into tokens, the detokenizer turns tokens into whole characters, and the
//! stop matcher cuts the output where the client asked for it.

pub mod control;
mod effort;
pub mod pool;
pub mod reply;
pub mod template;
pub mod tokenizer;

pub use control::ControlTokens;
pub use effort::{Cancelled, Effort};
pub use pool::{PoolFull, TextPool};
pub use reply::detokenizer::Detokenizer;
pub use reply::stop::{StopMatch, StopMatcher, StopSet};
pub use template::{ChatRender, ChatTemplate, TemplateError};
pub use tokenizer::{Tokenizer, TokenizerError};
