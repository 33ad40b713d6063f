//! Which tokens end a sequence.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::fields::without_mark;
use crate::{AddedToken, FolderError, ModelFolder};

/// The part of `tokenizer.json` that mostly suffices; the rest is passed over without being kept.
#[derive(Deserialize)]
struct AddedTokens {
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

impl ModelFolder {
    /// Every token that ends a sequence: the `eos_token_id` of `generation_config.json`, that of
    /// `config.json`, and the tokenizer's `eos_token`, each once, in this order.
    ///
    /// All of them, since none of the three is reliable: fine-tunes for chat often change the
    /// tokenizer's alone, and conversions lose what the others say.
    ///
    /// # Errors
    /// [`FolderError`] if a value is no token id, or `tokenizer.json` can't be read.
    pub fn end_tokens(&self) -> Result<Vec<u32>, FolderError> {
        let mut all = Vec::new();
        for file in self.generation().into_iter().chain([self.text_config(), self.config()]) {
            all.extend(file.ids("eos_token_id")?.unwrap_or_default());
        }
        if let Some(text) = self.special_tokens().get("eos_token") {
            all.extend(token_id(&self.dir.join("tokenizer.json"), text, &self.added_tokens())?);
        }
        let mut once: Vec<u32> = Vec::new();
        for token in all {
            if !once.contains(&token) {
                once.push(token);
            }
        }
        Ok(once)
    }
}

/// The id of `text` in a `tokenizer.json`, or the one it gets when `added` are added there; `None`
/// without such a file or token.
fn token_id(file: &Path, text: &str, added: &[AddedToken]) -> Result<Option<u32>, FolderError> {
    if !file.exists() {
        return Ok(None);
    }
    let bytes = std::fs::read(file).map_err(|error| FolderError::io(file, &error))?;
    let bytes = without_mark(&bytes);
    let broken = |error: serde_json::Error| FolderError::field(file, "*", error.to_string());
    let AddedTokens { added_tokens: known } = serde_json::from_slice(bytes).map_err(broken)?;
    if let Some(token) = known.iter().find(|token| token.content == text) {
        return Ok(Some(token.id));
    }
    // End tokens that are part of the plain vocabulary, or of none, are rare: only then is all of
    // it read.
    let whole: Value = serde_json::from_slice(bytes).map_err(broken)?;
    let vocab = &whole["model"]["vocab"];
    let id = in_vocabulary(vocab, text);
    Ok(id.or_else(|| once_added(vocab, &known, added, text)))
}

/// The id that the library gives to a new token: those behind vocabulary and added tokens, in order.
fn once_added(vocab: &Value, known: &[Added], added: &[AddedToken], text: &str) -> Option<u32> {
    let size = vocab.as_object().map(Map::len).or(vocab.as_array().map(Vec::len))? as u32;
    let highest = known.iter().map(|token| token.id).max();
    let first = highest.map_or(Some(0), |highest| highest.checked_add(1))?.max(size);
    let mut new: Vec<&str> = Vec::new();
    for AddedToken { content, .. } in added {
        let is_known = known.iter().any(|token| token.content == *content)
            || in_vocabulary(vocab, content).is_some()
            || new.contains(&content.as_str());
        if !is_known {
            new.push(content);
        }
    }
    let index = new.iter().position(|content| *content == text)?;
    first.checked_add(index as u32)
}

/// Most vocabularies map texts to ids; Unigram's list texts with their scores, by id.
fn in_vocabulary(vocab: &Value, text: &str) -> Option<u32> {
    let id = match vocab {
        Value::Array(pieces) => pieces.iter().position(|piece| piece[0] == text)? as u64,
        map => map[text].as_u64()?,
    };
    u32::try_from(id).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const TOKENIZER: &str = r#"{"added_tokens": [{"id": 9, "content": "<|im_end|>"}],
        "model": {"vocab": {"</s>": 2, "a": 3}}}"#;
    const UNIGRAM: &str = r#"{"model": {"vocab": [["<unk>", 0.0], ["</s>", -1.0]]}}"#;

    #[rstest]
    #[case::nothing_said("{}", "", "", "", &[])]
    #[case::from_config(r#"{"eos_token_id": 1}"#, "", "", "", &[1])]
    #[case::all_three(
        r#"{"eos_token_id": 1}"#, r#"{"eos_token_id": [4, 1]}"#,
        r#"{"eos_token": "<|im_end|>"}"#, TOKENIZER, &[4, 1, 9]
    )]
    #[case::zero_is_a_token(
        r#"{"eos_token_id": 0}"#, r#"{"eos_token_id": 0}"#,
        r#"{"eos_token": {"content": "<|im_end|>"}}"#, TOKENIZER, &[0, 9]
    )]
    #[case::of_the_vocabulary("{}", "", r#"{"eos_token": "</s>"}"#, TOKENIZER, &[2])]
    #[case::of_a_unigram_vocabulary("{}", "", r#"{"eos_token": "</s>"}"#, UNIGRAM, &[1])]
    #[case::added_by_its_name("{}", "", r#"{"bos_token": "b", "eos_token": "e"}"#, TOKENIZER, &[11])]
    #[case::without_a_tokenizer("{}", "", r#"{"eos_token": "</s>"}"#, "", &[])]
    #[case::null_is_absent(r#"{"eos_token_id": null}"#, "", r#"{"eos_token": null}"#, "", &[])]
    #[case::nested(r#"{"text_config": {"eos_token_id": 7}, "eos_token_id": 8}"#, "", "", "", &[7, 8])]
    #[case::behind_a_mark("\u{feff}{\"eos_token_id\": 5}", "", "", "", &[5])]
    fn every_end_token_counts(
        #[case] config: &str,
        #[case] generation: &str,
        #[case] tokenizer_config: &str,
        #[case] tokenizer: &str,
        #[case] want: &[u32],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("config.json", config),
            ("generation_config.json", generation),
            ("tokenizer_config.json", tokenizer_config),
            ("tokenizer.json", tokenizer),
        ];
        for (name, text) in files.into_iter().filter(|(_, text)| !text.is_empty()) {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let folder = ModelFolder::open(dir.path()).unwrap();
        assert_eq!(folder.end_tokens().unwrap(), want);
    }

    /// Ids as high as ids can be: there is none behind them to give to a token that is added.
    #[test]
    fn behind_the_last_id_there_is_none() {
        let known = vec![Added { id: u32::MAX, content: "a".into() }];
        let added = vec![AddedToken::special("e".into())];
        assert_eq!(once_added(&serde_json::json!({}), &known, &added, "e"), None);
    }

    #[test]
    fn what_is_no_token_names_file_and_field() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"eos_token_id": "</s>"}"#).unwrap();
        let error = ModelFolder::open(dir.path()).unwrap().end_tokens().unwrap_err();
        assert!(
            error.to_string().contains("config.json: `eos_token_id`: want a token id"),
            "{error}"
        );
    }
}
