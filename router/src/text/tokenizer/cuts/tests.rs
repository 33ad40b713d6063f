use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{byte_level_json, llama_decoder, sentencepiece_json, tokenizer};

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn split(pattern: &str) -> Json {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]})
}

/// Every kind that is cut, with merges that would like to reach over the cut.
fn kinds() -> Vec<(&'static str, Json)> {
    let byte_level = |pre_tokenizer: Option<Json>, normalizer: Json| {
        let mut json = byte_level_json();
        if let Some(pre_tokenizer) = pre_tokenizer {
            json["pre_tokenizer"] = pre_tokenizer;
        }
        json["normalizer"] = normalizer;
        json
    };
    let metaspace = |split: bool, scheme: &str| {
        let mut json = sentencepiece_json(&llama_decoder());
        json["normalizer"] = Json::Null;
        json["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
        json
    };
    vec![
        ("gpt-2", byte_level(None, Json::Null)),
        ("llama 3", byte_level(Some(split(LLAMA3)), Json::Null)),
        ("qwen", byte_level(Some(split(&LLAMA3.replace("{1,3}", ""))), json!({"type": "NFC"}))),
        ("o200k", byte_level(Some(split(O200K)), Json::Null)),
        ("llama 2", sentencepiece_json(&llama_decoder())),
        ("metaspace", metaspace(true, "always")),
        ("metaspace, first", metaspace(true, "first")),
        ("metaspace, whole", metaspace(false, "always")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_give_the_tokens_of_the_whole_text(
        parts in proptest::collection::vec((any::<prop::sample::Index>(), 1_usize..400), 40..120),
    ) {
        let pieces = [
            "a", "b", "ab", "hello w", " ", "  ", "\n", " \n", "\r\n\n", "\t", "a b", "b\na", "it's", "'S ", "é", "e\u{301}",
            "漢字", "字。漢", "あ、い", "한 글", "а б", "12345", "1 a", "a 1", "...", "a,b", "a /\nb", "<|im_end|>", "<s>", "</s> a", "▁", "a▁b",
            "\u{A0}", "a\u{A0}b", "\u{200B}", "😀", "K\u{212A} k",
        ];
        let text: String =
            parts.iter().map(|(part, count)| part.get(&pieces).repeat(*count)).collect();
        for (name, json) in kinds() {
            let cuts = Cuts::of(&json).expect(name);
            let tokenizer = tokenizer(&json);
            let encode = |text: &str| tokenizer.encode(text, false).unwrap();
            let cut: Vec<_> = cuts.pieces(&text).flat_map(encode).collect();
            prop_assert!(cut == encode(&text), "{} on {:?}", name, text);
        }
    }
}

#[test]
fn a_long_text_is_cut_into_pieces_of_a_few_kib() {
    for (name, json) in kinds() {
        let cuts = Cuts::of(&json).expect(name);
        let text = "ab ".repeat(100_000);
        let sizes: Vec<usize> = cuts.pieces(&text).map(str::len).collect();
        let most = 2 * PIECE_BYTES;
        assert!(sizes.len() > 10 && sizes.iter().all(|&size| size <= most), "{name}: {sizes:?}");
        let unbroken = "x".repeat(100_000);
        assert_eq!(cuts.pieces(&unbroken).count(), 1, "{name}");
    }
}

#[test]
fn tokenizers_of_which_nothing_is_known_are_not_cut() {
    let with = |path: &str, value: Json| {
        let mut json = byte_level_json();
        *json.pointer_mut(path).unwrap() = value;
        json
    };
    for (what, json) in [
        ("dropout", with("/model/dropout", json!(0.1))),
        ("another pattern", with("/pre_tokenizer", split(r"\S+|\s+(?<=x)"))),
        ("no pattern", with("/pre_tokenizer/use_regex", json!(false))),
        ("a normalizer that strips", with("/normalizer", json!({"type": "Strip"}))),
        ("a token with a space", with("/added_tokens/0/content", json!("<a b>"))),
    ] {
        assert_eq!(Cuts::of(&json), None, "{what}");
    }
    let mut spanning = sentencepiece_json(&llama_decoder());
    spanning["model"]["vocab"]["a▁b"] = 999.into();
    assert_eq!(Cuts::of(&spanning), None, "a token that reaches over a space");
}
