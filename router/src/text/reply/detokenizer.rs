//! Tokens to text, as they come, never splitting a character.

use std::sync::Arc;

use kv_cache::TokenId;

use crate::text::Tokenizer;

/// Context tokens that are decoded with the first new ones, where a decoder looks across tokens.
const CONTEXT_TOKENS: usize = 6;
/// A character has at most 4 bytes; text that stays incomplete for longer is really broken.
const INCOMPLETE_TOKENS_MAX: usize = 8;

/// Decodes one sequence token by token. What has been given out never changes; the bytes of an
/// incomplete character are kept back until the rest arrives.
///
/// The text of all calls together is what decoding the whole sequence at once gives. One exception,
/// in which decoding at once would take back text: a run of byte-fallback tokens that begins with
/// whole characters and then breaks keeps those characters.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special_tokens: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Pieces { utf8: Utf8Assembler, at_start: bool, strip: usize },
    Window(Window),
}

/// Puts characters together from bytes.
#[derive(Debug)]
struct Utf8Assembler {
    incomplete: Vec<u8>,
    replace_each_byte: bool,
}

/// For decoders that look across tokens: decodes the last few again with each new one.
#[derive(Debug, Default)]
struct Window {
    tokens: Vec<TokenId>,
    /// `tokens[..read]` have been given out; their text is `prefix`.
    read: usize,
    prefix: String,
}

// === impl Detokenizer ===

impl Detokenizer {
    /// A detokenizer for the tokens that follow on `context`; with an empty context, for a text
    /// from its start. With `skip_special_tokens`, special tokens are no text.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, context: &[TokenId], skip_special_tokens: bool) -> Self {
        let visible = |&&token: &&TokenId| !(skip_special_tokens && tokenizer.is_special(token));
        let state = match tokenizer.pieces() {
            Some(pieces) => {
                let at_start = !context.iter().any(|token| visible(&token));
                State::Pieces {
                    utf8: Utf8Assembler::new(pieces.rules.replace_each_byte),
                    at_start,
                    strip: if at_start { pieces.rules.strip_leading } else { 0 },
                }
            }
            None => {
                let visible: Vec<_> = context.iter().filter(visible).copied().collect();
                let tail = visible.len().saturating_sub(CONTEXT_TOKENS);
                State::Window(Window::after(&tokenizer, &visible[tail..]))
            }
        };
        Self { tokenizer, skip_special_tokens, state }
    }

    /// Takes the next token and appends to `text` what can be read now.
    ///
    /// A model may have more ids than its tokenizer, to make its matrices even: those are no text.
    pub fn push(&mut self, token: TokenId, text: &mut String) {
        let is_hidden = self.skip_special_tokens && self.tokenizer.is_special(token);
        if is_hidden || token >= self.tokenizer.vocab_tokens() {
            return;
        }
        match &mut self.state {
            State::Pieces { utf8, at_start, strip } => {
                let Some(pieces) = self.tokenizer.pieces() else { return };
                let bytes = if *at_start { pieces.first_bytes(token) } else { pieces.bytes(token) };
                *at_start = false;
                utf8.push(strip_spaces(bytes, strip), text);
            }
            State::Window(window) => window.push(&self.tokenizer, token, text),
        }
    }

    /// Ends the text: an incomplete character becomes U+FFFD.
    pub fn finish(&mut self, text: &mut String) {
        match &mut self.state {
            State::Pieces { utf8, .. } => utf8.finish(text),
            State::Window(window) => window.flush(&self.tokenizer, text),
        }
    }
}

/// Cuts up to `strip` leading spaces; the first other byte ends the cutting for good.
fn strip_spaces<'a>(bytes: &'a [u8], strip: &mut usize) -> &'a [u8] {
    let spaces = bytes.iter().take(*strip).take_while(|&&byte| byte == b' ').count();
    *strip = if spaces < bytes.len() { 0 } else { *strip - spaces };
    &bytes[spaces..]
}

// === impl Utf8Assembler ===

impl Utf8Assembler {
    fn new(replace_each_byte: bool) -> Self {
        Self { incomplete: Vec::new(), replace_each_byte }
    }

    fn push(&mut self, bytes: &[u8], text: &mut String) {
        if self.incomplete.is_empty() {
            self.incomplete = self.read(bytes, text).to_vec();
        } else {
            let mut all = std::mem::take(&mut self.incomplete);
            all.extend_from_slice(bytes);
            self.incomplete = self.read(&all, text).to_vec();
        }
    }

    /// Appends the characters in `bytes`; returns what may still become one.
    fn read<'a>(&self, mut bytes: &'a [u8], text: &mut String) -> &'a [u8] {
        loop {
            let error = match std::str::from_utf8(bytes) {
                Ok(valid) => {
                    text.push_str(valid);
                    return &[];
                }
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(broken) = error.error_len() else { return rest };
            self.replace(broken, text);
            bytes = &rest[broken..];
        }
    }

    fn finish(&mut self, text: &mut String) {
        let broken = std::mem::take(&mut self.incomplete).len();
        if broken > 0 {
            self.replace(broken, text);
        }
    }

    fn replace(&self, broken: usize, text: &mut String) {
        let count = if self.replace_each_byte { broken } else { 1 };
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, count));
    }
}

// === impl Window ===

impl Window {
    fn after(tokenizer: &Tokenizer, context: &[TokenId]) -> Self {
        let prefix = tokenizer.decode(context, false).unwrap_or_default();
        Self { tokens: context.to_vec(), read: context.len(), prefix }
    }

    fn push(&mut self, tokenizer: &Tokenizer, token: TokenId, text: &mut String) {
        self.tokens.push(token);
        let decoded = tokenizer.decode(&self.tokens, false).unwrap_or_default();
        let incomplete = decoded.ends_with(char::REPLACEMENT_CHARACTER)
            && self.tokens.len() - self.read < INCOMPLETE_TOKENS_MAX;
        if !incomplete && decoded.len() > self.prefix.len() {
            self.advance(tokenizer, &decoded, text);
        }
    }

    fn flush(&mut self, tokenizer: &Tokenizer, text: &mut String) {
        let decoded = tokenizer.decode(&self.tokens, false).unwrap_or_default();
        self.advance(tokenizer, &decoded, text);
    }

    /// Gives out what `decoded` has beyond the prefix, and makes the tokens just read the context
    /// of the next ones.
    fn advance(&mut self, tokenizer: &Tokenizer, decoded: &str, text: &mut String) {
        text.push_str(decoded.strip_prefix(self.prefix.as_str()).unwrap_or_default());
        self.tokens.drain(..self.read.min(self.tokens.len()));
        self.read = self.tokens.len();
        self.prefix = tokenizer.decode(&self.tokens, false).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
