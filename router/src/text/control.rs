//! Control tokens that are spelled in the texts of a conversation, encoded as the text they are.
//!
//! A prompt is one text, in which the tokenizer takes every `<|im_end|>` for the token, whoever wrote
//! it: a user, a document that a tool has read, or the template. To tell them apart, the tokens in texts
//! are marked before the template prints them. In the prompt, those without a mark are the template's;
//! they are written as aliases, the only names by which a second tokenizer knows control tokens.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use kv_cache::TokenId;
use serde_json::Value as Json;

use super::effort::Effort;
use super::template::{ChatRender, ChatTemplate};
use super::tokenizer::{Tokenizer, TokenizerError};

/// Characters that Unicode keeps for a program's own use; in texts they become U+FFFD. An alias is
/// [`ALIAS`], the token's number and [`END`]; a mark before a token, [`MARK`], its number and [`END`].
const ALIAS: char = '\u{FDD0}';
const END: char = '\u{FDD1}';
const MARK: char = '\u{FDD2}';
/// After a text that ends like the beginning of a token: the next text may go on with its end.
const BREAK: char = '\u{FDD3}';

/// A model's control tokens: those that its tokenizer calls special, and others that its template writes.
pub struct ControlTokens {
    /// Finds them in a text; a pattern's number is the token's.
    find: AhoCorasick,
    tokens: Vec<ControlToken>,
    /// Their names in order.
    sorted: Vec<String>,
    /// The longest name.
    bytes_max: usize,
    /// The model's tokenizer, but for the names of control tokens.
    tokenizer: Tokenizer,
}

struct ControlToken {
    name: String,
    /// Special to the tokenizer. Assistants write the others themselves (`</think>`), and templates
    /// look for them in what assistants wrote.
    special: bool,
}

// === impl ControlTokens ===

impl ControlTokens {
    /// Those of a tokenizer, the ones included that were added to what its file has, and of this template.
    ///
    /// # Errors
    /// As [`ControlTokens::new`].
    pub fn of(tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Self, TokenizerError> {
        Self::new(tokenizer.to_json()?.as_bytes(), template)
    }

    /// Those of a `tokenizer.json`'s contents and the template that goes with it.
    ///
    /// # Errors
    /// [`TokenizerError::Load`] if the file isn't a tokenizer, or can't do without these names.
    pub fn new(tokenizer_json: &[u8], template: &ChatTemplate) -> Result<Self, TokenizerError> {
        let load = |reason: String| TokenizerError::Load { path: "tokenizer.json".into(), reason };
        let mut json: Json =
            serde_json::from_slice(tokenizer_json).map_err(|error| load(error.to_string()))?;
        let tokens = control_tokens(&json, template);
        tokens
            .iter()
            .enumerate()
            .for_each(|(number, token)| rename(&mut json, number, &token.name));
        let names: Vec<&str> = tokens.iter().map(|token| &*token.name).collect();
        let find = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&names)
            .map_err(|error| load(error.to_string()))?;
        let mut sorted: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        sorted.sort_unstable();
        let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes())?;
        let bytes_max = names.iter().map(|name| name.len()).max().unwrap_or(0);
        Ok(Self { find, tokens, sorted, bytes_max, tokenizer })
    }

    /// Marks what is spelled in the texts of a conversation, so that [`ControlTokens::encode`] knows it.
    pub fn mark(&self, chat: &mut ChatRender) {
        for message in &mut chat.messages {
            let assistant = message["role"] == "assistant";
            self.mark_all(message, &|token| token.special || !assistant);
        }
        let others = [&mut chat.tools, &mut chat.documents];
        let others = others.into_iter().flatten().flatten().chain(chat.variables.values_mut());
        others.for_each(|value| self.mark_all(value, &|_| true));
    }

    /// Encodes a prompt made of marked texts, without adding special tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_prompt`].
    pub fn encode(
        &self,
        prompt: &str,
        salt: &Arc<[u8]>,
        effort: &Effort,
    ) -> Result<Vec<TokenId>, TokenizerError> {
        let mut text = String::with_capacity(prompt.len());
        let mut begin = 0;
        for found in self.find.find_iter(prompt) {
            let number = found.pattern().as_usize();
            let before = &prompt[begin..found.start()];
            push_unmarked(before, &mut text);
            if before.ends_with(&mark(number)) {
                text.push_str(&prompt[found.range()]);
            } else {
                text.push_str(&alias(number));
            }
            begin = found.end();
        }
        push_unmarked(&prompt[begin..], &mut text);
        self.tokenizer.encode_chat(&text, salt, effort)
    }

    fn mark_all(&self, value: &mut Json, which: &dyn Fn(&ControlToken) -> bool) {
        match value {
            Json::String(text) => {
                if let Some(marked) = self.marked(text, which) {
                    *text = marked;
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.mark_all(item, which)),
            Json::Object(fields) => {
                fields.values_mut().for_each(|field| self.mark_all(field, which));
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }

    /// The text with its tokens marked; `None` if there is nothing to do.
    fn marked(&self, text: &str, which: &dyn Fn(&ControlToken) -> bool) -> Option<String> {
        let own = |c: char| (ALIAS..=BREAK).contains(&c);
        if !text.contains(own) && !self.find.is_match(text) && !self.ends_like_a_token(text) {
            return None;
        }
        let text = text.replace(own, "\u{FFFD}");
        let mut marked = String::with_capacity(text.len() + 16);
        let mut begin = 0;
        for found in self.find.find_iter(&text) {
            marked.push_str(&text[begin..found.start()]);
            let number = found.pattern().as_usize();
            if which(&self.tokens[number]) {
                marked.push_str(&mark(number));
            }
            begin = found.start();
        }
        marked.push_str(&text[begin..]);
        if self.ends_like_a_token(&text) {
            marked.push(BREAK);
        }
        Some(marked)
    }

    /// Whether the text ends with the beginning of a token.
    fn ends_like_a_token(&self, text: &str) -> bool {
        let longest = text.len().saturating_sub(self.bytes_max);
        let mut ends = (longest..text.len()).filter_map(|begin| text.get(begin..));
        ends.any(|end| {
            let next = self.sorted.partition_point(|name| name.as_str() <= end);
            self.sorted.get(next).is_some_and(|name| name.starts_with(end))
        })
    }
}

impl std::fmt::Debug for ControlTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlTokens").field("names", &self.sorted).finish_non_exhaustive()
    }
}

fn control_tokens(json: &Json, template: &ChatTemplate) -> Vec<ControlToken> {
    let token = |added: &Json| {
        let name = added["content"].as_str().filter(|name| !name.is_empty())?.to_owned();
        let special = added["special"] == true;
        // Words and runs of spaces may be tokens of their own, too, and are text wherever they are.
        let written = name.starts_with(['<', '[']) && template.writes(&name);
        (special || written).then_some(ControlToken { name, special })
    };
    json["added_tokens"].as_array().into_iter().flatten().filter_map(token).collect()
}

/// Gives a token its alias wherever the tokenizer knows it by name; its id stays.
fn rename(json: &mut Json, number: usize, name: &str) {
    let alias = alias(number);
    let added = json["added_tokens"].as_array_mut();
    for token in added.into_iter().flatten().filter(|token| token["content"] == name) {
        token["content"] = alias.as_str().into();
    }
    let model = &mut json["model"];
    if model["unk_token"] == name {
        model["unk_token"] = alias.as_str().into();
    }
    match model.get_mut("vocab") {
        Some(Json::Object(vocab)) => {
            if let Some(id) = vocab.swap_remove(name) {
                vocab.insert(alias, id);
            }
        }
        Some(Json::Array(pieces)) => {
            for piece in pieces.iter_mut().filter(|piece| piece[0] == name) {
                piece[0] = alias.as_str().into();
            }
        }
        _ => {}
    }
}

fn alias(number: usize) -> String {
    format!("{ALIAS}{number}{END}")
}

fn mark(number: usize) -> String {
    format!("{MARK}{number}{END}")
}

/// Adds a text without its marks.
fn push_unmarked(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find([MARK, BREAK]) {
        out.push_str(&rest[..at]);
        rest = match rest[at..].strip_prefix(BREAK) {
            Some(after) => after,
            None => rest[at..].split_once(END).map_or("", |(_, after)| after),
        };
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests;
