//! The most text that a number of tokens can stand for.

use serde_json::Value as Json;

/// A bound on the bytes of one token, for a tokenizer under which no text vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    token_bytes_max: usize,
    /// By how much the normalizer may shorten text that isn't ASCII.
    shrinks: usize,
}

// === impl Bound ===

impl Bound {
    /// `None` if a token may stand for any amount of text: where spaces are stripped, unknown
    /// characters left out or fused, or nothing is known.
    pub(super) fn of(json: &Json) -> Option<Self> {
        let shrinks = shrinks(&json["normalizer"])?;
        let model = &json["model"];
        let is_byte_level = keeps_all(&json["pre_tokenizer"])?;
        if model["type"] != "BPE" || !(is_byte_level || model["byte_fallback"] == true) {
            return None;
        }
        let vocab = model["vocab"].as_object()?;
        let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        if added.iter().any(|token| token["lstrip"] == true || token["rstrip"] == true) {
            return None;
        }
        // Byte-level vocabularies write each byte as one character.
        let length =
            |token: &String| if is_byte_level { token.chars().count() } else { token.len() };
        let longest = vocab.keys().map(length).max()?;
        let added = added.iter().filter_map(|token| token["content"].as_str()).map(str::len).max();
        Some(Self { token_bytes_max: longest.max(added.unwrap_or(0)).max(1), shrinks })
    }

    /// The most bytes that so many tokens stand for.
    pub(super) fn bytes_max(&self, tokens: usize) -> usize {
        tokens.saturating_mul(self.token_bytes_max).saturating_mul(self.shrinks)
    }

    /// Whether `text` certainly has more than `tokens_max` tokens.
    pub(super) fn is_exceeded(&self, text: &str, tokens_max: usize) -> bool {
        let bytes_max = tokens_max.saturating_mul(self.token_bytes_max);
        // The cheap comparison first: most texts are far below.
        text.len() > bytes_max
            && (text.len() > bytes_max.saturating_mul(self.shrinks) || text.is_ascii())
    }
}

/// By how much a normalizer may shorten a text, of ASCII not at all; `None` if without a bound.
fn shrinks(normalizer: &Json) -> Option<usize> {
    match normalizer["type"].as_str() {
        None => normalizer.is_null().then_some(1),
        // Three jamo of Hangul, 3 bytes each, are one syllable of 3; a Kelvin sign is a K.
        Some("NFC" | "NFD" | "Lowercase") => Some(3),
        // A mathematical letter of 4 bytes is an ASCII one.
        Some("NFKC" | "NFKD") => Some(4),
        Some("Prepend") => Some(1),
        Some("Replace") => {
            let (pattern, content) =
                (normalizer["pattern"]["String"].as_str()?, normalizer["content"].as_str()?);
            (pattern.len() <= content.len()).then_some(1)
        }
        Some("Sequence") => normalizer["normalizers"]
            .as_array()?
            .iter()
            .try_fold(1, |all, n| Some(all * shrinks(n)?)),
        Some(_) => None,
    }
}

/// Whether a pre-tokenizer passes on every byte, and if so, whether as characters of their own.
fn keeps_all(pre_tokenizer: &Json) -> Option<bool> {
    match pre_tokenizer["type"].as_str() {
        None => pre_tokenizer.is_null().then_some(false),
        Some("ByteLevel") => Some(true),
        Some("Metaspace" | "Digits") => Some(false),
        Some("Split") => {
            let behavior = pre_tokenizer["behavior"].as_str()?;
            (behavior != "Removed").then_some(false)
        }
        Some("Sequence") => {
            let steps = pre_tokenizer["pretokenizers"].as_array()?;
            steps.iter().try_fold(false, |any, step| Some(any | keeps_all(step)?))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{byte_level_json, llama_decoder, sentencepiece_json, tokenizer};

    #[test]
    fn the_longest_token_bounds_what_a_limit_can_hold() {
        let bound = Bound::of(&byte_level_json()).unwrap();
        // `<|im_start|>` has 12 bytes.
        assert_eq!(bound, Bound { token_bytes_max: 12, shrinks: 1 });
        assert!(bound.is_exceeded(&"x".repeat(1201), 100));
        assert!(!bound.is_exceeded(&"x".repeat(1200), 100));
        assert!(!bound.is_exceeded("", 0));
    }

    #[test]
    fn what_may_vanish_has_no_bound() {
        for (path, value) in [
            ("/normalizer", json!({"type": "Strip", "left": true, "right": true})),
            ("/normalizer", json!({"type": "Replace", "pattern": {"Regex": " +"}, "content": " "})),
            ("/pre_tokenizer", json!({"type": "Whitespace"})),
            ("/added_tokens/0/rstrip", json!(true)),
            ("/model/type", json!("WordPiece")),
        ] {
            let mut json = byte_level_json();
            *json.pointer_mut(path).unwrap() = value;
            assert_eq!(Bound::of(&json), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_that_fits_is_refused(text in "(\\PC|<s>|<\\|im_start\\|>|  |\u{1100}\u{1161}\u{11A8}|\u{212A}){0,60}") {
            let nfc = |mut json: Json| { json["normalizer"] = json!({"type": "NFC"}); json };
            for json in [byte_level_json(), nfc(byte_level_json()), sentencepiece_json(&llama_decoder())] {
                let bound = Bound::of(&json).unwrap();
                let tokens = tokenizer(&json).encode(&text, false).unwrap().len();
                prop_assert!(!bound.is_exceeded(&text, tokens), "{text:?}");
            }
        }
    }
}
