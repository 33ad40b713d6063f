use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::testing::{BOS, EOS, HELLO, IM_START, byte_level_json, tokenizer};

#[test]
fn raw_prompts_get_a_bos_and_rendered_chats_do_not() {
    let tokenizer = tokenizer(&byte_level_json());
    assert_eq!(tokenizer.encode("hello", true).unwrap(), [BOS, HELLO]);
    assert_eq!(tokenizer.encode("<|im_start|>hello", false).unwrap(), [IM_START, HELLO]);
}

#[test]
fn special_tokens_are_known_by_id_and_by_name() {
    let tokenizer = tokenizer(&byte_level_json());
    assert!(tokenizer.is_special(EOS) && !tokenizer.is_special(HELLO));
    assert!(!tokenizer.is_special(TokenId::MAX));
    assert_eq!(tokenizer.token_id("<|eos|>"), Some(EOS));
    assert_eq!(tokenizer.vocab_tokens(), 266);
}

#[test]
fn a_token_s_bytes_may_be_a_part_of_a_character() {
    let tokenizer = tokenizer(&byte_level_json());
    assert_eq!(tokenizer.token_bytes(0xF0), [0xF0]);
    assert_eq!(tokenizer.token_bytes(HELLO), b"hello");
    assert_eq!(tokenizer.token_bytes(EOS), b"<|eos|>");
}

#[test]
fn a_missing_file_is_named() {
    let error = Tokenizer::from_file(Path::new("/nowhere/tokenizer.json")).unwrap_err();
    assert!(error.to_string().contains("/nowhere/tokenizer.json"), "{error}");
}

/// What transformers made of a text.
#[derive(Deserialize)]
struct Golden {
    text: String,
    #[serde(default)]
    add_special_tokens: bool,
    #[serde(alias = "tokens")]
    ids: Vec<TokenId>,
}

#[test]
fn golden_texts_tokenize_as_in_transformers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Ok(text) = std::fs::read_to_string(root.join("tests/goldens/tokenizer.json")) else { return };
    let tokenizer = Tokenizer::from_file(&root.join("models/demo/tokenizer.json")).unwrap();
    let goldens: Vec<Golden> = serde_json::from_str(&text).unwrap();
    for golden in goldens {
        let ids = tokenizer.encode(&golden.text, golden.add_special_tokens).unwrap();
        assert_eq!(ids, golden.ids, "{:?}", golden.text);
    }
}
