use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{byte_level_json, llama_decoder, sentencepiece_json, tokenizer};

/// All deltas of a sequence, and the rest.
fn stream(tokenizer: &Arc<Tokenizer>, tokens: &[TokenId], skip: bool) -> Vec<String> {
    let mut reader = Detokenizer::new(Arc::clone(tokenizer), &[], skip);
    let mut deltas: Vec<String> = tokens
        .iter()
        .map(|&token| {
            let mut delta = String::new();
            reader.push(token, &mut delta);
            delta
        })
        .collect();
    let mut rest = String::new();
    reader.finish(&mut rest);
    deltas.push(rest);
    deltas
}

fn wordpiece() -> Arc<Tokenizer> {
    let vocab = json!({"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "a": 4, ".": 5, "n": 6, "'": 7, "t": 8});
    tokenizer(&json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab}
    }))
}

#[test]
fn a_character_comes_out_whole_with_its_last_byte() {
    let tokenizer = tokenizer(&byte_level_json());
    let tokens: Vec<TokenId> = "aé🎉".bytes().map(TokenId::from).collect();
    assert_eq!(stream(&tokenizer, &tokens, true), ["a", "", "é", "", "", "", "🎉", ""]);
}

#[test]
fn an_unfinished_character_becomes_a_replacement_character_at_the_end() {
    let tokenizer = tokenizer(&byte_level_json());
    assert_eq!(stream(&tokenizer, &[0xF0, 0x9F], true), ["", "", "\u{FFFD}"]);
}

#[test]
fn a_broken_character_does_not_hold_up_what_follows() {
    let tokenizer = tokenizer(&byte_level_json());
    let tokens = [0xF0, 0x9F, u32::from(b'x'), u32::from(b'y')];
    assert_eq!(stream(&tokenizer, &tokens, true), ["", "", "\u{FFFD}x", "y", ""]);
}

#[test]
fn the_space_before_the_first_word_is_cut_only_at_the_start_of_the_text() {
    let tokenizer = tokenizer(&sentencepiece_json(&llama_decoder()));
    let word = tokenizer.token_id("▁ab").unwrap();
    assert_eq!(stream(&tokenizer, &[word, word], true).concat(), "ab ab");
    for (context, expected) in [(vec![1], "ab"), (vec![1, word], " ab")] {
        let mut reader = Detokenizer::new(Arc::clone(&tokenizer), &context, true);
        let mut text = String::new();
        reader.push(word, &mut text);
        assert_eq!(text, expected, "after {context:?}");
    }
}

#[test]
fn bytes_of_byte_fallback_become_characters() {
    let tokenizer = tokenizer(&sentencepiece_json(&llama_decoder()));
    let bytes = "€x".bytes().map(|byte| tokenizer.token_id(&format!("<0x{byte:02X}>")).unwrap());
    assert_eq!(stream(&tokenizer, &bytes.collect::<Vec<_>>(), true).concat(), "€x");
}

#[test]
fn ids_beyond_the_vocabulary_are_no_text() {
    let byte_level = tokenizer(&byte_level_json());
    let beyond = byte_level.vocab_tokens();
    let tokens = [beyond, 0xC3, TokenId::MAX, 0xA9, 260];
    assert_eq!(stream(&byte_level, &tokens, true), ["", "", "", "é", "", ""]);
    let wordpiece = wordpiece();
    let (beyond, un) = (wordpiece.vocab_tokens(), wordpiece.token_id("un").unwrap());
    assert_eq!(stream(&wordpiece, &[beyond, un, beyond], false).concat(), "un");
}

#[test]
fn special_tokens_are_text_only_when_asked_for() {
    let tokenizer = tokenizer(&byte_level_json());
    let tokens = [u32::from(b'a'), crate::testing::EOS, u32::from(b'b')];
    assert_eq!(stream(&tokenizer, &tokens, true).concat(), "ab");
    assert_eq!(stream(&tokenizer, &tokens, false).concat(), "a<|eos|>b");
}

proptest! {
    #[test]
    fn byte_level_deltas_are_the_text_decoded_at_once(
        tokens in proptest::collection::vec(0u32..266, 0..40),
        skip: bool,
    ) {
        let tokenizer = tokenizer(&byte_level_json());
        let whole = tokenizer.decode(&tokens, skip).unwrap();
        prop_assert_eq!(stream(&tokenizer, &tokens, skip).concat(), whole);
    }

    #[test]
    fn sentencepiece_deltas_are_the_text_decoded_at_once(
        words in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        skip: bool,
    ) {
        // Bytes come as whole characters, or as bytes that never make one.
        let tokenizer = tokenizer(&sentencepiece_json(&llama_decoder()));
        let byte = |byte: u8| TokenId::from(byte) + 3;
        let mut choices: Vec<Vec<TokenId>> = (259..268).map(|id| vec![id]).collect();
        choices.extend(["é", "🎉", "x", " "].map(|c| c.bytes().map(byte).collect()));
        choices.extend([vec![byte(0xF0), byte(0x9F), 260], vec![byte(0xFF), 260], vec![1], vec![2]]);
        let tokens: Vec<TokenId> = words.iter().flat_map(|w| w.get(&choices).clone()).collect();
        let whole = tokenizer.decode(&tokens, skip).unwrap();
        let streamed = stream(&tokenizer, &tokens, skip).concat();
        let valid_then_broken = whole.matches('\u{FFFD}').count() != streamed.matches('\u{FFFD}').count();
        prop_assume!(!valid_then_broken);
        prop_assert_eq!(streamed, whole);
    }

    #[test]
    fn metaspace_deltas_are_the_text_decoded_at_once(
        tokens in proptest::collection::vec(259u32..268, 0..12),
    ) {
        for scheme in ["always", "first", "never"] {
            let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
            let tokenizer = tokenizer(&sentencepiece_json(&decoder));
            let whole = tokenizer.decode(&tokens, true).unwrap();
            prop_assert_eq!(stream(&tokenizer, &tokens, true).concat(), whole, "{}", scheme);
        }
    }

    #[test]
    fn wordpiece_deltas_are_the_text_decoded_at_once(
        tokens in proptest::collection::vec(0u32..9, 0..20),
    ) {
        let tokenizer = wordpiece();
        let whole = tokenizer.decode(&tokens, true).unwrap();
        prop_assert_eq!(stream(&tokenizer, &tokens, true).concat(), whole);
    }
}

#[test]
fn the_demo_models_text_survives_token_by_token() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/tokenizer.json");
    let tokenizer = Arc::new(Tokenizer::from_file(&path).unwrap());
    let text =
        "Prefill and decode, 1,024 tokens — naïve “quotes” 日本語 🎉\n\n\ttabs  and   spaces.";
    let tokens = tokenizer.encode(text, false).unwrap();
    assert_eq!(stream(&tokenizer, &tokens, true).concat(), text);
}
