//! The special tokens that a folder names.

use serde_json::{Map, Value};

use crate::{Fields, ModelFolder};

/// The names that transformers gives a tokenizer's special tokens, in its order.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// A list of more of them; the second name is that of transformers 5.
const MORE: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// Special tokens by name (`bos_token`, `eos_token`, ...), as templates print them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens(Map<String, Value>);

/// A token that is found in a text before the text is divided into others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Not part of an answer's text.
    pub special: bool,
    /// Only where it is a word of its own.
    pub single_word: bool,
    /// Takes the blanks before it along.
    pub lstrip: bool,
    /// Takes the blanks behind it along.
    pub rstrip: bool,
    /// Looked for after the text was normalized, rather than before.
    pub normalized: bool,
}

// === impl SpecialTokens ===

impl SpecialTokens {
    /// The special tokens of a `tokenizer_config.json` or a `special_tokens_map.json`.
    #[must_use]
    pub fn from_config(config: &Value) -> Self {
        config.as_object().map(Self::from_entries).unwrap_or_default()
    }

    fn from_entries(config: &Map<String, Value>) -> Self {
        let mut tokens = Map::new();
        for name in NAMES {
            if let Some(text) = config.get(name).and_then(token_text) {
                tokens.insert(name.to_owned(), text.into());
            }
        }
        let more: Vec<Value> = more_of(config).map(Value::from).collect();
        if !more.is_empty() {
            tokens.insert(MORE[0].to_owned(), more.into());
        }
        Self(tokens)
    }

    /// The token of that name, if the model has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// All of them: a text, or under `additional_special_tokens` a list of texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Adds the tokens of `other` that are missing here.
    fn or(mut self, other: Self) -> Self {
        for (name, token) in other.0 {
            self.0.entry(name).or_insert(token);
        }
        self
    }
}

// === impl AddedToken ===

impl AddedToken {
    pub(crate) fn special(content: String) -> Self {
        Self {
            content,
            special: true,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
        }
    }

    fn read(entry: &Value) -> Option<Self> {
        let flag = |name: &str, absent: bool| entry[name].as_bool().unwrap_or(absent);
        let special = flag("special", false);
        Some(Self {
            content: entry["content"].as_str()?.to_owned(),
            special,
            single_word: flag("single_word", false),
            lstrip: flag("lstrip", false),
            rstrip: flag("rstrip", false),
            normalized: flag("normalized", !special),
        })
    }
}

impl ModelFolder {
    /// The special tokens of `tokenizer_config.json`; what it doesn't name, from
    /// `special_tokens_map.json`.
    #[must_use]
    pub fn special_tokens(&self) -> SpecialTokens {
        let tokens = |file: &Option<Fields>| {
            file.as_ref()
                .map(|file| SpecialTokens::from_entries(file.entries()))
                .unwrap_or_default()
        };
        tokens(&self.tokenizer).or(tokens(&self.special_tokens_map))
    }

    /// The tokens that `tokenizer_config.json` wants to exist, in the order in which transformers
    /// adds those that `tokenizer.json` lacks.
    #[must_use]
    pub fn added_tokens(&self) -> Vec<AddedToken> {
        let Some(file) = self.tokenizer.as_ref().map(Fields::entries) else { return Vec::new() };
        let mut listed: Vec<(u64, AddedToken)> = file
            .get("added_tokens_decoder")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(id, entry)| Some((id.parse().ok()?, AddedToken::read(entry)?)))
            .collect();
        listed.sort_by_key(|(id, _)| *id);
        let named = NAMES.into_iter().filter_map(|name| file.get(name).and_then(token_text));
        let special = named.chain(more_of(file)).map(AddedToken::special);
        listed.into_iter().map(|(_, token)| token).chain(special).collect()
    }
}

fn more_of(file: &Map<String, Value>) -> impl Iterator<Item = String> {
    let lists = MORE.into_iter().filter_map(|name| file.get(name)?.as_array());
    lists.flatten().filter_map(token_text)
}

/// A token is written as a string, or as an object with its `content`.
fn token_text(token: &Value) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}
