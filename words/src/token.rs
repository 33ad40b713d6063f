//! What comes of a request: tokens, how likely they were, and an end.

use kv_cache::TokenId;

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    /// Which of the request's choices.
    pub choice: u32,
    /// Index among the choice's generated tokens, from 0.
    pub index: u32,
    /// The token.
    pub token: TokenId,
    /// Its log probability, when asked for.
    pub logprob: Option<TokenLogprob>,
}

/// A token's log probability (natural logarithm, of the model's own distribution before
/// temperature and penalties) and its likeliest alternatives, best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenLogprob {
    /// The token's own.
    pub logprob: f32,
    /// The likeliest tokens at this position.
    pub top: Vec<(TokenId, f32)>,
}

/// The log probability of one prompt token; the first token of a prompt has none.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLogprob {
    /// Index in the prompt.
    pub index: u32,
    /// Given the tokens before it.
    pub logprob: TokenLogprob,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended it, or a stop token; the token is the last one delivered.
    Stop(TokenId),
    /// It reached `max_tokens` or the model's context length.
    Length,
}
