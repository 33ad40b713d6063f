//! What a model says, on its way from its tokens to an API.
//!
//! Tokens become characters ([`detokenizer`]), characters become pieces of which it is known what [`Part`] of the reply
//! they are, and the text ends where the client asked for it ([`stop`]). With each piece go the tokens that begin in it.

use std::collections::VecDeque;

use kv_cache::TokenId;
use words::{SampledToken, TokenLogprob};

use detokenizer::Detokenizer;
use stop::{StopMatch, StopMatcher};

pub mod detokenizer;
pub mod stop;

/// Reads one sequence.
#[derive(Debug)]
pub struct Reply {
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens whose text is held back.
    waiting: VecDeque<ReplyToken>,
    /// Characters so far.
    decoded: usize,
    /// What has been said, and not given out.
    said: Piece,
}

/// What a piece of a reply is. Every API has a place of its own for each part, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// The prompt, given back.
    Prompt,
    /// What the model says to the client.
    #[default]
    Content,
}

/// More of a reply, and the tokens that begin in it. Text or tokens may be empty: a character can take several tokens, and a
/// token can be held back with its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// What it is.
    pub part: Part,
    /// Whole characters.
    pub text: String,
    /// Tokens whose text begins in what has been given out.
    pub tokens: Vec<ReplyToken>,
}

/// A token in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyToken {
    /// The token.
    pub id: TokenId,
    /// Its log probability, when asked for; the first token of an echoed prompt has none.
    pub logprob: Option<TokenLogprob>,
    /// Where its text begins, in characters from the beginning of the choice's text.
    pub offset: usize,
    /// It ended the sequence and is no part of the text.
    pub ends: bool,
}

// === impl Reply ===

impl Reply {
    /// A reply that `detokenizer` decodes and `stops` cuts.
    #[must_use]
    pub fn new(detokenizer: Detokenizer, stops: StopMatcher) -> Self {
        Self { detokenizer, stops, waiting: VecDeque::new(), decoded: 0, said: Piece::default() }
    }

    /// Opens with the prompt, which is told at once. No stop string is looked for in it.
    pub fn echo(&mut self, text: &str, tokens: Vec<ReplyToken>) -> Piece {
        self.decoded = text.chars().count();
        Piece { part: Part::Prompt, text: text.to_owned(), tokens }
    }

    /// Reads one token. Its text is said as far as it is known not to belong to a stop string. Returns the stop string that
    /// is now complete; where nothing `may_stop` the text yet, none is looked for.
    pub fn read(&mut self, token: SampledToken, may_stop: bool) -> Option<StopMatch> {
        let mut text = String::new();
        self.detokenizer.push(token.token, &mut text);
        self.wait(token, false);
        if may_stop {
            return self.watch(&text);
        }
        self.decoded += text.chars().count();
        self.said.text.push_str(&text);
        None
    }

    /// Ends the text: what was held back is said. The last of it may complete a stop string.
    pub fn finish(&mut self) -> Option<StopMatch> {
        let mut rest = String::new();
        self.detokenizer.finish(&mut rest);
        let found = self.watch(&rest);
        if found.is_none() {
            self.stops.finish(&mut self.said.text);
        }
        found
    }

    /// Notes the token that ended the sequence, and has no text.
    pub fn note_end(&mut self, token: SampledToken) {
        self.wait(token, true);
    }

    /// Gives out what has been said, with the tokens whose text begins in it.
    pub fn take(&mut self) -> Option<Piece> {
        let held = self.stops.held();
        let given = self.decoded - held;
        while let Some(token) = self.waiting.pop_front_if(|token| held == 0 || token.offset < given)
        {
            self.said.tokens.push(token);
        }
        let is_empty = self.said.text.is_empty() && self.said.tokens.is_empty();
        (!is_empty).then(|| std::mem::take(&mut self.said))
    }

    fn watch(&mut self, text: &str) -> Option<StopMatch> {
        self.decoded += text.chars().count();
        self.stops.push(text, &mut self.said.text)
    }

    fn wait(&mut self, token: SampledToken, ends: bool) {
        let SampledToken { token: id, logprob, .. } = token;
        self.waiting.push_back(ReplyToken { id, logprob, offset: self.decoded, ends });
    }
}

#[cfg(test)]
mod tests;
