//! Where a model folder keeps its chat template, and the special tokens it may name.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use minijinja::Value;
use serde_json::{Map, Value as Json};

use super::ChatTemplate;
use crate::text::python;

/// The names that transformers gives a tokenizer's special tokens.
const SPECIAL_TOKEN_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Special tokens by name (`bos_token`, `eos_token`, ...), as templates print them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens(Map<String, Json>);

/// Why a model's chat template could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TemplateLoadError {
    /// A file is there, but can't be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The template has a syntax error.
    #[error("the chat template `{name}` has an error: {reason}")]
    Syntax {
        /// Which template.
        name: String,
        /// What the template library says.
        reason: String,
    },
}

// === impl SpecialTokens ===

impl SpecialTokens {
    /// The special tokens of a `tokenizer_config.json` or a `special_tokens_map.json`.
    #[must_use]
    pub fn from_config(config: &Json) -> Self {
        let mut tokens = Map::new();
        for name in SPECIAL_TOKEN_NAMES {
            if let Some(text) = token_text(&config[name]) {
                tokens.insert(name.to_owned(), text.into());
            }
        }
        if let Some(more) = config["additional_special_tokens"].as_array() {
            let texts: Vec<Json> = more.iter().filter_map(token_text).map(Json::from).collect();
            tokens.insert("additional_special_tokens".to_owned(), texts.into());
        }
        Self(tokens)
    }

    /// The token of that name, if the model has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Json::as_str)
    }

    pub(super) fn variables(&self) -> Vec<(String, Value)> {
        self.0.iter().map(|(name, text)| (name.clone(), python::value_of(text))).collect()
    }

    /// Adds the tokens of `other` that are missing here.
    fn or(mut self, other: Self) -> Self {
        for (name, token) in other.0 {
            self.0.entry(name).or_insert(token);
        }
        self
    }
}

/// A token is written as a string, or as an object with its `content`.
fn token_text(token: &Json) -> Option<String> {
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned)
}

pub(super) fn from_folder(folder: &Path) -> Result<Option<ChatTemplate>, TemplateLoadError> {
    let config = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let map = read_json(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
    let special_tokens = SpecialTokens::from_config(&config).or(SpecialTokens::from_config(&map));
    let sources = match read(&folder.join("chat_template.jinja"))? {
        Some(source) => vec![("default".to_owned(), source)],
        None => named_sources(&config["chat_template"]),
    };
    if sources.is_empty() {
        return Ok(None);
    }
    ChatTemplate::from_named(&sources, special_tokens).map(Some)
}

/// `chat_template` is one template, or a list of named ones; a list without a `default` uses its
/// first.
fn named_sources(chat_template: &Json) -> Vec<(String, String)> {
    if let Some(source) = chat_template.as_str() {
        return vec![("default".to_owned(), source.to_owned())];
    }
    let named = |entry: &Json| {
        Some((entry["name"].as_str()?.to_owned(), entry["template"].as_str()?.to_owned()))
    };
    let mut sources: Vec<_> =
        chat_template.as_array().into_iter().flatten().filter_map(named).collect();
    if !sources.iter().any(|(name, _)| name == "default")
        && let Some((name, _)) = sources.first_mut()
    {
        "default".clone_into(name);
    }
    sources
}

fn read(path: &Path) -> Result<Option<String>, TemplateLoadError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(TemplateLoadError::Read { path: path.to_owned(), reason: error.to_string() })
        }
    }
}

fn read_json(path: &Path) -> Result<Option<Json>, TemplateLoadError> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| TemplateLoadError::Read {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Replaces `{% generation %}` blocks, which mark the assistant's tokens for training, by blocks
/// that do nothing but keep the same whitespace control.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let (before, tag) = rest.split_at(begin);
        result.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (open, word, close) = tag_parts(&tag[2..end]);
        match word {
            "generation" => result.push_str(&format!("{{%{open} if true {close}%}}")),
            "endgeneration" => result.push_str(&format!("{{%{open} endif {close}%}}")),
            _ => result.push_str(&tag[..end + 2]),
        }
        rest = &tag[end + 2..];
    }
    result.push_str(rest);
    result
}

/// The whitespace control before and after a tag's words, and the words.
fn tag_parts(inside: &str) -> (&str, &str, &str) {
    let (open, inside) = inside.split_at(usize::from(inside.starts_with(['-', '+'])));
    let (inside, close) = inside.split_at(inside.len() - usize::from(inside.ends_with(['-', '+'])));
    (open, inside.trim(), close)
}
