//! A model's tokenizer: text to token ids.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kv_cache::TokenId;

use super::pieces::Pieces;
use super::segments::Segments;

/// Turns text into token ids, and knows what every id stands for.
///
/// Encoding is synchronous and slow (1-3 MB/s): it belongs on a [`TextPool`](super::TextPool).
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Option<Pieces>,
    segments: Segments,
    special: Vec<bool>,
    vocab_tokens: u32,
}

/// Why a tokenizer could not be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file is missing, or not a tokenizer.
    #[error("cannot load the tokenizer {path}: {reason}")]
    Load {
        /// `tokenizer.json`, or what was given instead.
        path: PathBuf,
        /// What the tokenizer library says.
        reason: String,
    },
    /// The text could not be encoded.
    #[error("cannot tokenize: {0}")]
    Encode(String),
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Load`] if the file can't be read or isn't a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let load = |reason: String| TokenizerError::Load { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| load(error.to_string()))?;
        Self::from_bytes(&bytes).map_err(|error| match error {
            TokenizerError::Load { reason, .. } => load(reason),
            other => other,
        })
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Load`] if the bytes aren't a tokenizer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let load = |reason: String| TokenizerError::Load { path: "tokenizer.json".into(), reason };
        let mut inner =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| load(error.to_string()))?;
        // A prompt that doesn't fit is refused, never cut; nothing here is batched.
        inner.with_truncation(None).map_err(|error| load(error.to_string()))?;
        inner.with_padding(None);
        Ok(Self::new(inner))
    }

    fn new(inner: tokenizers::Tokenizer) -> Self {
        let vocab_tokens =
            inner.get_vocab(true).into_values().max().map_or(0, |highest| highest + 1);
        let added = inner.get_added_vocabulary();
        let special = (0..vocab_tokens)
            .map(|id| added.simple_id_to_token(id).is_some_and(|t| added.is_special_token(&t)))
            .collect();
        let pieces = Pieces::of(&inner, vocab_tokens);
        let segments = Segments::of(&inner);
        Self { inner, pieces, segments, special, vocab_tokens }
    }

    /// Encodes `text`.
    ///
    /// With `add_special_tokens`, the tokens that the model wants around a raw prompt (a leading
    /// BOS, mostly) are added. A rendered chat template has them already and must be encoded
    /// without. Special tokens written out in the text become those tokens, either way.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer's own rules fail on this text.
    pub fn encode(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        self.inner
            .encode_fast(text, add_special_tokens)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| TokenizerError::Encode(error.to_string()))
    }

    /// Encodes a rendered conversation, without adding special tokens. The same as
    /// [`Tokenizer::encode`], but turns that the same tenant has sent before cost next to nothing.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer's own rules fail on this text.
    pub fn encode_chat(
        &self,
        text: &str,
        salt: &Arc<[u8]>,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        self.segments.encode(text, salt, |segment| self.encode(segment, false))
    }

    /// Decodes a whole sequence at once.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if the tokenizer's own rules fail on these tokens.
    pub fn decode(
        &self,
        tokens: &[TokenId],
        skip_special_tokens: bool,
    ) -> Result<String, TokenizerError> {
        self.inner
            .decode(tokens, skip_special_tokens)
            .map_err(|error| TokenizerError::Encode(error.to_string()))
    }

    /// One more than the highest token id.
    #[must_use]
    pub fn vocab_tokens(&self) -> u32 {
        self.vocab_tokens
    }

    /// Whether the token is marked as special (BOS, EOS, chat markers): not part of the text.
    #[must_use]
    pub fn is_special(&self, token: TokenId) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }

    /// The id of a token given by its name, as in `<|im_end|>`.
    #[must_use]
    pub fn token_id(&self, name: &str) -> Option<TokenId> {
        self.inner.token_to_id(name)
    }

    /// The bytes a token adds to a text; not always whole characters. Special tokens by name.
    #[must_use]
    pub fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        match &self.pieces {
            Some(pieces) => pieces.bytes(token).to_vec(),
            None => self.inner.decode(&[token], false).unwrap_or_default().into_bytes(),
        }
    }

    /// The precomputed bytes of every token, where this tokenizer's decoder allows for that.
    pub(super) fn pieces(&self) -> Option<&Pieces> {
        self.pieces.as_ref()
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_tokens", &self.vocab_tokens)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
