//! Text to tokens and back.
//!
//! The only place in the house that knows text: the chat template renders a conversation, the
//! tokenizer turns text into tokens, the detokenizer turns tokens into whole characters, and the
//! stop matcher cuts the output where the client asked for it.

mod bound;
pub mod control;
mod cuts;
pub mod detokenizer;
mod effort;
pub mod pieces;
pub mod pool;
mod python;
mod segments;
pub mod stop;
pub mod template;
pub mod tokenizer;

pub use control::ControlTokens;
pub use detokenizer::Detokenizer;
pub use effort::{Cancelled, Effort};
pub use pool::{PoolFull, TextPool};
pub use stop::{StopMatch, StopMatcher, StopSet};
pub use template::{ChatRender, ChatTemplate, TemplateError};
pub use tokenizer::{Tokenizer, TokenizerError};
