//! A model's tokenizer: text to token ids.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kv_cache::TokenId;
use model_folder::{AddedToken, FolderError};

use super::effort::Effort;
use bound::Bound;
use cuts::Cuts;
use pieces::Pieces;
use segments::Segments;

mod bound;
mod cuts;
pub mod pieces;
mod segments;

/// A text without a place where it may be cut is tokenized in one go, which nothing can stop. So much takes a
/// few seconds at most; no word of any language is a thousandth of it.
const UNBROKEN_BYTES_MAX: usize = 2 << 20;

/// Ids of a vocabulary, four times the largest known: something is kept for each up to the highest.
const VOCAB_TOKENS_MAX: u32 = 1 << 22;

/// Turns text into token ids, and knows what every id stands for.
///
/// Encoding is synchronous and slow (1-3 MB/s): it belongs on a [`TextPool`](super::TextPool).
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Option<Pieces>,
    segments: Segments,
    cuts: Option<Cuts>,
    bound: Option<Bound>,
    frame: Option<Frame>,
    special: Vec<bool>,
    vocab_tokens: u32,
}

/// What a tokenizer puts around a raw prompt.
struct Frame {
    before: Vec<TokenId>,
    after: Vec<TokenId>,
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
    /// The file can't be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The text could not be encoded.
    #[error("cannot tokenize: {0}")]
    Encode(String),
    /// The text has more tokens than were wanted.
    #[error("the text has more than {0} tokens")]
    TooLong(usize),
    /// A part of the text can't be divided.
    #[error(
        "the text has {bytes} bytes without a space between two letters, at most {UNBROKEN_BYTES_MAX} are read"
    )]
    Unbroken {
        /// Its size.
        bytes: usize,
    },
    /// Nobody waits for the tokens any more.
    #[error("nobody waits for the tokens any more")]
    Cancelled,
}

// === impl Tokenizer ===

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TokenizerError::Load`] if the file can't be read or isn't a tokenizer.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let load = |reason: String| TokenizerError::Load { path: path.to_owned(), reason };
        let bytes = std::fs::read(path).map_err(|error| FolderError::io(path, &error))?;
        Self::from_bytes(model_folder::without_mark(&bytes)).map_err(|error| match error {
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
        let mut inner = parse(bytes).map_err(load)?;
        // A prompt that doesn't fit is refused, never cut; nothing here is batched.
        inner.with_truncation(None).map_err(|error| load(error.to_string()))?;
        inner.with_padding(None);
        caught(|| Self::new(inner).map_err(Into::into)).map_err(load)
    }

    /// With those of `tokens` that it doesn't know yet, as transformers adds them: each gets the
    /// next free id.
    ///
    /// # Errors
    /// [`TokenizerError::Load`] if the library refuses one.
    pub fn with_added(self, tokens: &[AddedToken]) -> Result<Self, TokenizerError> {
        let load = |reason| TokenizerError::Load { path: "tokenizer_config.json".into(), reason };
        let mut inner = self.inner;
        let vocabulary = inner.get_added_vocabulary().get_vocab();
        let is_new = |token: &&AddedToken| !vocabulary.contains_key(&token.content);
        let new: Vec<tokenizers::AddedToken> = tokens.iter().filter(is_new).map(added).collect();
        if !new.is_empty() {
            caught(|| inner.add_tokens(new)).map_err(load)?;
        }
        caught(|| Self::new(inner).map_err(Into::into)).map_err(load)
    }

    /// Says what is wrong, where something is.
    fn new(inner: tokenizers::Tokenizer) -> Result<Self, String> {
        let highest = inner.get_vocab(true).into_values().max();
        if let Some(highest) = highest.filter(|&highest| highest >= VOCAB_TOKENS_MAX) {
            return Err(format!("has a token of id {highest}, want all below {VOCAB_TOKENS_MAX}"));
        }
        let vocab_tokens = highest.map_or(0, |highest| highest + 1);
        let added = inner.get_added_vocabulary();
        let special = (0..vocab_tokens)
            .map(|id| added.simple_id_to_token(id).is_some_and(|t| added.is_special_token(&t)))
            .collect();
        let pieces = Pieces::of(&inner, vocab_tokens);
        let json = inner.to_string(false).ok().and_then(|text| serde_json::from_str(&text).ok());
        let json: serde_json::Value = json.unwrap_or_default();
        Ok(Self {
            pieces,
            segments: Segments::of(&json),
            cuts: Cuts::of(&json),
            bound: Bound::of(&json),
            frame: Frame::of(&inner),
            inner,
            special,
            vocab_tokens,
        })
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
        caught(|| self.inner.encode_fast(text, add_special_tokens))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(TokenizerError::Encode)
    }

    /// Encodes a raw prompt: the same as [`Tokenizer::encode`] with special tokens, but piece by piece,
    /// and no further than is wanted.
    ///
    /// # Errors
    /// [`TokenizerError`] if the text has too many tokens, if nobody waits for them any more, or if
    /// the tokenizer's own rules fail on this text.
    pub fn encode_prompt(
        &self,
        text: &str,
        effort: &Effort,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        self.check_size(text, effort)?;
        let Some(Frame { before, after }) = &self.frame else {
            let tokens = self.encode(text, true)?;
            return check(tokens.len(), effort).map(|()| tokens);
        };
        let text = self.encode_pieces(text, &effort.after(before.len() + after.len()));
        // Said of the whole: what the frame takes is not the client's to know.
        let text = text.map_err(|error| error.of(effort.tokens_max))?;
        Ok([before, &text, after].map(|tokens| &tokens[..]).concat())
    }

    /// Encodes a rendered conversation, without adding special tokens. The same as
    /// [`Tokenizer::encode`], but piece by piece, no further than is wanted, and turns that the same
    /// tenant has sent before cost next to nothing.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_prompt`].
    pub fn encode_chat(
        &self,
        text: &str,
        salt: &Arc<[u8]>,
        effort: &Effort,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        self.check_size(text, effort)?;
        let encode = |segment: &str, before: usize| {
            let tokens = self.encode_pieces(segment, &effort.after(before));
            tokens.map_err(|error| error.of(effort.tokens_max))
        };
        let tokens = self.segments.encode(text, salt, encode)?;
        check(tokens.len(), effort).map(|()| tokens)
    }

    /// The most bytes that so many tokens can stand for, where there is a bound.
    #[must_use]
    pub fn text_bytes_max(&self, tokens: usize) -> Option<usize> {
        self.bound.as_ref().map(|bound| bound.bytes_max(tokens))
    }

    /// Refuses what has too many tokens by its size alone.
    fn check_size(&self, text: &str, effort: &Effort) -> Result<(), TokenizerError> {
        let exceeded = |bound: &Bound| bound.is_exceeded(text, effort.tokens_max);
        if self.bound.as_ref().is_some_and(exceeded) {
            return Err(TokenizerError::TooLong(effort.tokens_max));
        }
        Ok(())
    }

    fn encode_pieces(&self, text: &str, effort: &Effort) -> Result<Vec<TokenId>, TokenizerError> {
        let mut tokens = Vec::new();
        let Some(cuts) = &self.cuts else {
            self.encode_piece(text, effort, &mut tokens)?;
            return Ok(tokens);
        };
        for piece in cuts.pieces(text) {
            self.encode_piece(piece, effort, &mut tokens)?;
        }
        Ok(tokens)
    }

    fn encode_piece(
        &self,
        piece: &str,
        effort: &Effort,
        tokens: &mut Vec<TokenId>,
    ) -> Result<(), TokenizerError> {
        check(tokens.len(), effort)?;
        if piece.len() > UNBROKEN_BYTES_MAX {
            return Err(TokenizerError::Unbroken { bytes: piece.len() });
        }
        tokens.extend(self.encode(piece, false)?);
        check(tokens.len(), effort)
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
        caught(|| self.inner.decode(tokens, skip_special_tokens)).map_err(TokenizerError::Encode)
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
            None => self.decode(&[token], false).unwrap_or_default().into_bytes(),
        }
    }

    /// What a `tokenizer.json` says of it, all added tokens included.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] if it can't be written.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        self.inner.to_string(false).map_err(|error| TokenizerError::Encode(error.to_string()))
    }

    /// The precomputed bytes of every token, where this tokenizer's decoder allows for that.
    pub(super) fn pieces(&self) -> Option<&Pieces> {
        self.pieces.as_ref()
    }
}

/// Has the library read a file.
fn parse(bytes: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|error| error.to_string())?;
    caught(|| tokenizers::Tokenizer::from_bytes(bytes))
}

/// What the library makes of a file, a text or tokens. With some broken files it panics, at once or later, where it
/// should say what is wrong.
fn caught<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    let done = catch_unwind(AssertUnwindSafe(work));
    let done = done.map_err(|_| "is broken in a way that its library has no words for")?;
    done.map_err(|error| error.to_string())
}

/// Whether work on a text goes on once it has so many tokens.
fn check(tokens: usize, effort: &Effort) -> Result<(), TokenizerError> {
    if effort.cancelled.is_set() {
        return Err(TokenizerError::Cancelled);
    }
    if tokens > effort.tokens_max {
        return Err(TokenizerError::TooLong(effort.tokens_max));
    }
    Ok(())
}

// === impl Frame ===

impl Frame {
    /// `None` if the tokenizer does more to a raw prompt than to put tokens around it.
    fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let encode = |text: &str, framed: bool| {
            let encoding = tokenizer.encode_fast(text, framed).ok()?;
            Some(encoding.get_ids().to_vec())
        };
        let (plain, framed) = (encode("a", false)?, encode("a", true)?);
        let at = framed.windows(plain.len().max(1)).position(|window| window == plain)?;
        let frame =
            Self { before: framed[..at].to_vec(), after: framed[at + plain.len()..].to_vec() };
        let other = encode("b a", false)?;
        let whole = [&frame.before[..], &other, &frame.after].concat();
        (encode("b a", true)? == whole).then_some(frame)
    }
}

// === impl TokenizerError ===

impl TokenizerError {
    /// The same, said of a limit of `tokens_max`.
    fn of(self, tokens_max: usize) -> Self {
        match self {
            Self::TooLong(_) => Self::TooLong(tokens_max),
            other => other,
        }
    }
}

fn added(token: &AddedToken) -> tokenizers::AddedToken {
    tokenizers::AddedToken::from(token.content.clone(), token.special)
        .single_word(token.single_word)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .normalized(token.normalized)
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
