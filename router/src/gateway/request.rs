//! A request between text and tokens, whatever API it came by.

use std::sync::Arc;

use kv_cache::TokenId;
use words::TenantSalt;

use super::params::CheckedParams;
use crate::callers::caller::Caller;
use crate::served_model::ServedModel;
use crate::text::ChatRender;

/// A request whose fields have been checked, but whose text has not been read.
#[derive(Clone, Debug)]
pub struct TextRequest {
    /// Who asks.
    pub caller: Caller,
    /// For what.
    pub task: Task,
}

/// What an API makes of a request.
#[derive(Clone, Debug)]
pub struct Task {
    /// Which model.
    pub model: Arc<ServedModel>,
    /// The prompt or prompts.
    pub input: Input,
    /// The field that they came in, for error messages.
    pub input_name: &'static str,
    /// Sampling and stopping.
    pub params: Arc<CheckedParams>,
    /// Begin the text with the prompt.
    pub echo: bool,
    /// Whose prefix cache it may share.
    pub salt: TenantSalt,
}

/// What to continue.
#[derive(Clone, Debug)]
pub enum Input {
    /// A conversation, rendered with the model's template.
    Chat(Box<ChatRender>),
    /// Raw texts.
    Texts(Vec<String>),
    /// Token ids, in range.
    Tokens(Vec<Vec<TokenId>>),
}

/// A prompt as the model sees it.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Arc<[TokenId]>,
    /// Its text, where it has to be given back.
    pub echo: Option<String>,
}

// === impl Task ===

impl Task {
    /// Those it asks for: each choice for each prompt.
    #[must_use]
    pub fn sequences(&self) -> u32 {
        self.params.n.saturating_mul(u32::try_from(self.input.prompts()).unwrap_or(u32::MAX))
    }

    /// Whether the prompt's own tokens have to be scored.
    #[must_use]
    pub fn scores_prompt(&self) -> bool {
        self.echo && self.params.sampling.logprobs.is_some()
    }
}

// === impl Input ===

impl Input {
    /// The text that has to be read; token ids are read already.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Chat(chat) => chat.messages.iter().map(text_bytes).sum(),
            Self::Texts(texts) => texts.iter().map(String::len).sum(),
            Self::Tokens(_) => 0,
        }
    }

    /// How many prompts there are.
    #[must_use]
    pub fn prompts(&self) -> usize {
        match self {
            Self::Chat(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::Tokens(prompts) => prompts.len(),
        }
    }
}

/// The bytes of all texts in a JSON value.
fn text_bytes(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(items) => items.iter().map(text_bytes).sum(),
        serde_json::Value::Object(fields) => fields.values().map(text_bytes).sum(),
        _ => 0,
    }
}
