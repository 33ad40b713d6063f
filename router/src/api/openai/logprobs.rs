//! Log probabilities, in the two shapes that OpenAI has for them.

use indexmap::IndexMap;
use kv_cache::TokenId;
use serde::Serialize;
use words::TokenLogprob;

use crate::text::Tokenizer;
use crate::text::reply::ReplyToken;

/// JSON knows no infinity; OpenAI writes this for tokens that can't be.
const LOGPROB_MIN: f32 = -9999.0;

/// Chat: one entry per token.
#[derive(Debug, Default, Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: Likely,
    top_logprobs: Vec<Likely>,
}

/// A token, as text and as bytes: a character may take several.
#[derive(Debug, Serialize)]
struct Likely {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

/// Completions: one list per property.
#[derive(Debug, Default, Serialize)]
pub(super) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<IndexMap<String, f32>>>,
    text_offset: Vec<usize>,
}

// === impl ChatLogprobs ===

impl ChatLogprobs {
    /// Adds tokens; those that ended the sequence are no part of the answer.
    pub(super) fn extend(&mut self, tokens: &[ReplyToken], tokenizer: &Tokenizer) {
        let entry = |token: &ReplyToken| {
            let found = token.logprob.as_ref()?;
            let likely = |&(id, logprob): &(TokenId, f32)| Likely::new(id, logprob, tokenizer);
            Some(ChatToken {
                token: Likely::new(token.id, found.logprob, tokenizer),
                top_logprobs: found.top.iter().map(likely).collect(),
            })
        };
        self.content.extend(tokens.iter().filter(|token| !token.ends).filter_map(entry));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.content.is_empty()
    }
}

// === impl Likely ===

impl Likely {
    fn new(id: TokenId, logprob: f32, tokenizer: &Tokenizer) -> Self {
        let bytes = tokenizer.token_bytes(id);
        let token = String::from_utf8_lossy(&bytes).into_owned();
        Self { token, logprob: finite(logprob), bytes }
    }
}

// === impl CompletionLogprobs ===

impl CompletionLogprobs {
    /// Adds tokens, one that ended the sequence included though it is no part of the text: clients
    /// that score prompts (lm-eval) count on an entry for each token of the usage.
    pub(super) fn extend(&mut self, tokens: &[ReplyToken], tokenizer: &Tokenizer) {
        for token in tokens {
            self.tokens.push(text(token.id, tokenizer));
            self.text_offset.push(token.offset);
            let found = token.logprob.as_ref();
            self.token_logprobs.push(found.map(|found| finite(found.logprob)));
            self.top_logprobs.push(found.map(|found| likeliest(token.id, found, tokenizer)));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// The likeliest tokens by their texts. The token taken is always among them, be it likely or not;
/// of tokens that read the same, the likeliest counts.
fn likeliest(taken: TokenId, found: &TokenLogprob, tokenizer: &Tokenizer) -> IndexMap<String, f32> {
    let mut top = IndexMap::new();
    for (id, logprob) in found.top.iter().copied().chain([(taken, found.logprob)]) {
        let known = top.entry(text(id, tokenizer)).or_insert(LOGPROB_MIN);
        *known = finite(logprob).max(*known);
    }
    top
}

fn text(id: TokenId, tokenizer: &Tokenizer) -> String {
    String::from_utf8_lossy(&tokenizer.token_bytes(id)).into_owned()
}

fn finite(logprob: f32) -> f32 {
    if logprob.is_nan() { LOGPROB_MIN } else { logprob.clamp(LOGPROB_MIN, 0.0) }
}
