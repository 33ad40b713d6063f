//! What is told of a request under way.

use kv_cache::TokenId;

use crate::text::reply::Piece;

/// What a stream brings. Choices are numbered over all prompts: `prompt * n + choice`.
#[derive(Clone, Debug, PartialEq)]
pub enum TextEvent {
    /// More of a choice.
    Piece {
        /// Which choice.
        choice: u32,
        /// What is said.
        piece: Piece,
    },
    /// A choice has ended.
    Finished {
        /// Which choice.
        choice: u32,
        /// Why.
        reason: Finish,
    },
}

/// Why a choice ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model's end-of-sequence token, or one of the request's stop tokens.
    StopToken(TokenId),
    /// A stop string.
    StopString(String),
    /// `max_tokens`, or the model's context.
    Length,
}

// === impl TextEvent ===

impl TextEvent {
    /// Which choice it is about.
    #[must_use]
    pub fn choice(&self) -> u32 {
        match self {
            Self::Piece { choice, .. } | Self::Finished { choice, .. } => *choice,
        }
    }
}
