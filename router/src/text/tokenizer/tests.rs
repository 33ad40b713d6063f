use serde::Deserialize;

use super::*;
use crate::testing::{BOS, EOS, HELLO, IM_START, byte_level_json, tokenizer};
use crate::text::Detokenizer;

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

/// The library would panic on both: JSON that breaks off within a decoder, a table of characters that is none.
#[test]
fn a_broken_file_is_refused_in_words() {
    let mut whole = byte_level_json();
    let cut = whole.to_string().replace(r#""trim_offsets":true"#, r#""trim_offsets" true"#);
    whole["normalizer"] =
        serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAA="});
    for broken in [cut, whole.to_string()] {
        let error = Tokenizer::from_bytes(broken.as_bytes()).unwrap_err();
        assert!(matches!(error, TokenizerError::Load { .. }), "{error}");
    }
}

/// Something is kept for every id up to the highest: a file of a few bytes must not cost gigabytes.
#[test]
fn a_vocabulary_without_an_end_is_refused() {
    for id in [u64::from(VOCAB_TOKENS_MAX), u32::MAX.into()] {
        let mut json = byte_level_json();
        json["model"]["vocab"]["zz"] = id.into();
        let error = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(&format!("id {id}")), "{error}");
    }
}

/// What transformers made of a text with the demo model's tokenizer.
#[derive(Deserialize)]
struct Golden {
    text: String,
    ids: Vec<TokenId>,
    ids_without_special: Vec<TokenId>,
    decoded: String,
    decoded_without_special: String,
}

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Golden>,
}

#[test]
fn golden_texts_tokenize_as_in_transformers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("tests/goldens/tokenizer.json")).unwrap();
    let path = root.join("models/demo/tokenizer.json");
    let tokenizer = Arc::new(Tokenizer::from_file(&path).unwrap());
    let goldens: Goldens = serde_json::from_str(&text).unwrap();
    assert!(!goldens.cases.is_empty());
    for golden in goldens.cases {
        let text = &golden.text;
        assert_eq!(tokenizer.encode(text, true).unwrap(), golden.ids, "{text:?}");
        assert_eq!(tokenizer.encode(text, false).unwrap(), golden.ids_without_special, "{text:?}");
        for (skip, expected) in [(false, &golden.decoded), (true, &golden.decoded_without_special)]
        {
            assert_eq!(&tokenizer.decode(&golden.ids, skip).unwrap(), expected);
            let mut reader = Detokenizer::new(Arc::clone(&tokenizer), &[], skip);
            let mut streamed = String::new();
            golden.ids.iter().for_each(|&token| reader.push(token, &mut streamed));
            reader.finish(&mut streamed);
            assert_eq!(&streamed, expected, "token by token");
        }
    }
}

#[test]
fn a_prompt_piece_by_piece_has_the_tokens_of_the_whole() {
    let text = "hello world, <|im_start|>user\nsays hello. ".repeat(2000);
    for json in
        [byte_level_json(), crate::testing::sentencepiece_json(&crate::testing::llama_decoder())]
    {
        let tokenizer = tokenizer(&json);
        let whole = tokenizer.encode(&text, true).unwrap();
        assert_eq!(tokenizer.encode_prompt(&text, &Effort::default()).unwrap(), whole);
        let just = Effort { tokens_max: whole.len(), ..Effort::default() };
        assert_eq!(tokenizer.encode_prompt(&text, &just).unwrap(), whole);
        let less = Effort { tokens_max: whole.len() - 1, ..Effort::default() };
        let refused = tokenizer.encode_prompt(&text, &less).unwrap_err();
        assert!(matches!(refused, TokenizerError::TooLong(most) if most == whole.len() - 1));
        let chat = tokenizer.encode(&text, false).unwrap();
        let just = Effort { tokens_max: chat.len(), ..Effort::default() };
        for _ in 0..2 {
            assert_eq!(tokenizer.encode_chat(&text, &Arc::default(), &just).unwrap(), chat);
        }
    }
}

#[test]
fn nobody_tokenizes_for_whoever_has_gone_and_no_word_is_endless() {
    let tokenizer = tokenizer(&byte_level_json());
    let gone = Effort::default();
    gone.cancelled.set();
    assert!(matches!(tokenizer.encode_prompt("x", &gone), Err(TokenizerError::Cancelled)));
    let endless = "x".repeat(UNBROKEN_BYTES_MAX + 1);
    let refused = tokenizer.encode_prompt(&endless, &Effort::default());
    assert!(matches!(refused, Err(TokenizerError::Unbroken { .. })));
}
