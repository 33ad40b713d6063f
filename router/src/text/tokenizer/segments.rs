//! Remembers how pieces of prompts were tokenized.
//!
//! Special tokens cut a text into segments that are tokenized independently of each other. The turns
//! of a conversation are such segments, and come again with every next turn: only what is new has
//! to be tokenized.

use std::collections::HashMap;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use kv_cache::TokenId;
use parking_lot::Mutex;
use serde_json::Value as Json;

/// Segments below this are tokenized faster than they are worth remembering.
const SEGMENT_BYTES_MIN: usize = 128;
/// For text and tokens together: the turns of some thousands of conversations.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Cuts texts, and remembers the tokens of the pieces.
pub(super) struct Segments {
    /// The special tokens after which a text may be cut; `None` if cutting would change the tokens.
    cuts: Option<AhoCorasick>,
    cache: Mutex<Generations>,
}

/// A segment, as one tenant sent it. Tenants share nothing: how long tokenizing takes would tell one
/// what another has sent.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    salt: Arc<[u8]>,
    text: Box<str>,
}

/// Two generations: what is used moves to the young one, and when that is full, the old one goes.
#[derive(Default)]
struct Generations {
    young: HashMap<Key, Arc<[TokenId]>>,
    old: HashMap<Key, Arc<[TokenId]>>,
    young_bytes: usize,
}

// === impl Segments ===

impl Segments {
    pub(super) fn of(json: &Json) -> Self {
        Self { cuts: cuts(json), cache: Mutex::default() }
    }

    /// Tokenizes `text`, each segment once: the result is that of `encode` on the whole text.
    /// `encode` is told how many tokens there are before the segment.
    pub(super) fn encode<E>(
        &self,
        text: &str,
        salt: &Arc<[u8]>,
        encode: impl Fn(&str, usize) -> Result<Vec<TokenId>, E>,
    ) -> Result<Vec<TokenId>, E> {
        let Some(cuts) = &self.cuts else { return encode(text, 0) };
        let mut tokens = Vec::new();
        // Short segments are tokenized together.
        let mut begin = 0;
        let ends = cuts.find_iter(text).map(|found| found.end()).chain([text.len()]);
        for end in ends {
            if end - begin < SEGMENT_BYTES_MIN && end < text.len() {
                continue;
            }
            self.encode_segment(&text[begin..end], salt, &encode, &mut tokens)?;
            begin = end;
        }
        Ok(tokens)
    }

    fn encode_segment<E>(
        &self,
        text: &str,
        salt: &Arc<[u8]>,
        encode: impl Fn(&str, usize) -> Result<Vec<TokenId>, E>,
        tokens: &mut Vec<TokenId>,
    ) -> Result<(), E> {
        if text.is_empty() {
            return Ok(());
        }
        if text.len() < SEGMENT_BYTES_MIN {
            tokens.extend(encode(text, tokens.len())?);
            return Ok(());
        }
        let key = Key { salt: Arc::clone(salt), text: text.into() };
        if let Some(known) = self.cache.lock().get(&key) {
            tokens.extend_from_slice(&known);
            return Ok(());
        }
        let new: Arc<[TokenId]> = encode(text, tokens.len())?.into();
        tokens.extend_from_slice(&new);
        self.cache.lock().insert(key, new);
        Ok(())
    }
}

/// The tokens after which every text may be cut, if there are any.
fn cuts(json: &Json) -> Option<AhoCorasick> {
    if looks_at_position(&json["pre_tokenizer"]) {
        return None;
    }
    let added: Vec<&Json> = json["added_tokens"].as_array()?.iter().collect();
    let texts: Vec<&str> = added.iter().filter_map(|token| token["content"].as_str()).collect();
    let is_cut = |token: &&Json| {
        let plain =
            ["normalized", "lstrip", "rstrip", "single_word"].iter().all(|f| token[f] == false);
        let text = token["content"].as_str().unwrap_or_default();
        plain
            && !text.is_empty()
            && texts.iter().all(|other| *other == text || !touches(other, text))
    };
    let patterns: Vec<&str> = added
        .iter()
        .copied()
        .filter(is_cut)
        .filter_map(|token| token["content"].as_str())
        .collect();
    if patterns.is_empty() {
        return None;
    }
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns).ok()
}

/// Whether a step treats the beginning of the text in its own way: `prepend_scheme: first`.
fn looks_at_position(pre_tokenizer: &Json) -> bool {
    let inside = pre_tokenizer["pretokenizers"].as_array();
    pre_tokenizer["prepend_scheme"] == "first"
        || inside.into_iter().flatten().any(looks_at_position)
}

/// Whether the two can overlap in a text, so that one might win over the other.
fn touches(a: &str, b: &str) -> bool {
    let ends_in = |a: &str, b: &str| {
        (1..a.len().min(b.len())).any(|n| a.as_bytes().ends_with(&b.as_bytes()[..n]))
    };
    a.contains(b) || b.contains(a) || ends_in(a, b) || ends_in(b, a)
}

// === impl Generations ===

impl Generations {
    fn get(&mut self, key: &Key) -> Option<Arc<[TokenId]>> {
        if let Some(tokens) = self.young.get(key) {
            return Some(Arc::clone(tokens));
        }
        let (key, tokens) = self.old.remove_entry(key)?;
        self.insert(key, Arc::clone(&tokens));
        Some(tokens)
    }

    fn insert(&mut self, key: Key, tokens: Arc<[TokenId]>) {
        let bytes = key.text.len() + size_of_val(&*tokens);
        if bytes > CACHE_BYTES_MAX / 4 {
            return;
        }
        if self.young_bytes + bytes > CACHE_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, tokens);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{byte_level_json, sentencepiece_json, tokenizer};

    #[test]
    fn a_turn_that_comes_again_is_not_tokenized_again() {
        let segments = Segments::of(&byte_level_json());
        let turn = |n: usize| format!("<|im_start|>user\n{}<|im_end|>", n.to_string().repeat(200));
        let seen = RefCell::new(Vec::new());
        let encode = |text: &str, _: usize| {
            seen.borrow_mut().push(text.len());
            Ok::<_, ()>(vec![0])
        };
        let salt: Arc<[u8]> = Arc::default();
        segments.encode(&[turn(1), turn(2)].concat(), &salt, encode).unwrap();
        assert_eq!(seen.take().len(), 2);
        segments.encode(&[turn(1), turn(2), turn(3)].concat(), &salt, encode).unwrap();
        assert_eq!(seen.take().len(), 1, "only what is new");
        let other: Arc<[u8]> = Arc::from(*b"other");
        segments.encode(&turn(1), &other, encode).unwrap();
        assert_eq!(seen.take().len(), 1, "tenants share nothing");
    }

    #[test]
    fn what_is_not_used_goes() {
        let mut cache = Generations::default();
        let key = |n: usize| Key { salt: Arc::default(), text: format!("{n:01000}").into() };
        let tokens: Arc<[TokenId]> = vec![0; 1000].into();
        for n in 0..CACHE_BYTES_MAX / 1000 {
            cache.insert(key(n), Arc::clone(&tokens));
            assert!(cache.get(&key(0)).is_some(), "used all the time");
        }
        assert!(cache.get(&key(1)).is_none());
        assert!((cache.young.len() + cache.old.len()) * 5000 <= CACHE_BYTES_MAX);
    }

    #[test]
    fn tokens_that_overlap_do_not_cut() {
        for (a, b, touch) in
            [("<|a|>", "<|b|>", false), ("<a", "<ab", true), ("ab", "bc", true), ("x", "y", false)]
        {
            assert_eq!(touches(a, b), touch, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn segments_give_the_tokens_of_the_whole_text(
            parts in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
        ) {
            let pieces = [
                "<|im_start|>", "<|im_end|>", "<|eos|>", "</s>", "<s>", "hello world ", " ", "\n", "<|im_", "é",
                "a long enough turn to be remembered, a long enough turn to be remembered, and then some more of it",
            ];
            let text: String = parts.iter().map(|part| *part.get(&pieces)).collect();
            for json in [byte_level_json(), sentencepiece_json(&crate::testing::llama_decoder())] {
                let (tokenizer, segments) = (tokenizer(&json), Segments::of(&json));
                let encode = |text: &str, _: usize| tokenizer.encode(text, false);
                let whole = encode(&text, 0).unwrap();
                for _ in 0..2 {
                    prop_assert_eq!(&segments.encode(&text, &Arc::default(), encode).unwrap(), &whole);
                }
            }
        }
    }
}
