//! The bytes that every token stands for, computed once.
//!
//! Most decoders work token by token: byte-level BPE maps each character to a byte, SentencePiece
//! replaces `▁` with a space and `<0x0A>` with a byte. For those, decoding is looking up a token's
//! bytes; what depends on the position (the space at the very start) is kept as a rule.

use std::collections::HashMap;

use kv_cache::TokenId;
use serde_json::Value;

/// Every token's bytes, and the rules for putting them together.
#[derive(Debug)]
pub struct Pieces {
    bytes: Vec<u8>,
    /// `offsets[id]..offsets[id + 1]` are the token's bytes.
    offsets: Vec<u32>,
    pub(in crate::text) rules: Rules,
    /// Metaspace only: how tokens read as the first of a text, where that differs.
    first: HashMap<TokenId, Box<[u8]>>,
}

/// What a decoder does beyond concatenating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::text) struct Rules {
    /// Spaces cut from the start of the text.
    pub(in crate::text) strip_leading: usize,
    /// Each broken byte becomes its own U+FFFD (SentencePiece's byte fallback), rather than each
    /// broken sequence (byte-level BPE).
    pub(in crate::text) replace_each_byte: bool,
}

/// A decoder, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    byte_level: bool,
    byte_fallback: bool,
    replacements: Vec<(String, String)>,
    metaspace: Option<Metaspace>,
    strip_leading: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Metaspace {
    replacement: char,
    /// A marker at the start of the text was added by the tokenizer and is no space.
    dropped_at_start: bool,
}

// === impl Pieces ===

impl Pieces {
    /// The pieces of a tokenizer whose decoder works token by token; `None` for others.
    pub(in crate::text) fn of(
        tokenizer: &tokenizers::Tokenizer,
        vocab_tokens: u32,
    ) -> Option<Self> {
        let decoder = serde_json::to_value(tokenizer.get_decoder()?).ok()?;
        let plan = Plan::of(&decoder)?;
        let byte_of = byte_level_alphabet();
        let mut pieces = Self {
            bytes: Vec::new(),
            offsets: Vec::with_capacity(vocab_tokens as usize + 1),
            rules: Rules {
                strip_leading: plan.strip_leading,
                replace_each_byte: plan.byte_fallback,
            },
            first: HashMap::new(),
        };
        pieces.offsets.push(0);
        for id in 0..vocab_tokens {
            if let Some(token) = tokenizer.id_to_token(id) {
                let bytes = plan.bytes(&token, &byte_of, false);
                if plan.metaspace.as_ref().is_some_and(|m| m.dropped_at_start) {
                    let first = plan.bytes(&token, &byte_of, true);
                    if first != bytes {
                        pieces.first.insert(id, first.into());
                    }
                }
                pieces.bytes.extend(bytes);
            }
            pieces.offsets.push(u32::try_from(pieces.bytes.len()).ok()?);
        }
        Some(pieces)
    }

    /// The token's bytes in the middle of a text; none for an id outside of the vocabulary.
    pub(in crate::text) fn bytes(&self, token: TokenId) -> &[u8] {
        let index = token as usize;
        match (self.offsets.get(index), self.offsets.get(index + 1)) {
            (Some(&begin), Some(&end)) => &self.bytes[begin as usize..end as usize],
            _ => &[],
        }
    }

    /// The token's bytes at the start of a text.
    pub(in crate::text) fn first_bytes(&self, token: TokenId) -> &[u8] {
        self.first.get(&token).map_or(self.bytes(token), |bytes| &**bytes)
    }
}

// === impl Plan ===

impl Plan {
    /// Reads a decoder's description; `None` if it isn't one that works token by token.
    fn of(decoder: &Value) -> Option<Self> {
        let mut plan = Self::default();
        let mut fused = false;
        for step in steps(decoder) {
            match step["type"].as_str()? {
                "ByteLevel" if plan == Self::default() => plan.byte_level = true,
                "Fuse" => fused = true,
                "ByteFallback" if !fused && !plan.byte_level => plan.byte_fallback = true,
                "Replace" if !fused && !plan.byte_level => {
                    let pattern = step["pattern"]["String"].as_str()?;
                    plan.replacements.push((pattern.into(), step["content"].as_str()?.into()));
                }
                "Metaspace" if !fused && !plan.byte_level && plan.metaspace.is_none() => {
                    plan.metaspace = Some(Metaspace {
                        replacement: step["replacement"].as_str()?.chars().next()?,
                        dropped_at_start: step["prepend_scheme"].as_str() != Some("never"),
                    });
                }
                "Strip" if fused && step["content"] == " " && step["stop"] == 0 => {
                    plan.strip_leading = usize::try_from(step["start"].as_u64()?).ok()?;
                }
                _ => return None,
            }
        }
        Some(plan)
    }

    fn bytes(&self, token: &str, byte_of: &HashMap<char, u8>, first: bool) -> Vec<u8> {
        if self.byte_level {
            let mapped: Option<Vec<u8>> = token.chars().map(|c| byte_of.get(&c).copied()).collect();
            // Added tokens are written in plain text.
            return mapped.unwrap_or_else(|| token.as_bytes().to_vec());
        }
        if self.byte_fallback
            && let Some(byte) = fallback_byte(token)
        {
            return vec![byte];
        }
        let mut text = token.to_owned();
        for (pattern, content) in &self.replacements {
            text = text.replace(pattern, content);
        }
        if let Some(metaspace) = &self.metaspace {
            let space = if first && metaspace.dropped_at_start { "" } else { " " };
            text = text.replace(metaspace.replacement, space);
        }
        text.into_bytes()
    }
}

/// The decoder's steps, sequences unrolled.
fn steps(decoder: &Value) -> Vec<&Value> {
    match decoder["decoders"].as_array() {
        Some(decoders) if decoder["type"] == "Sequence" => {
            decoders.iter().flat_map(steps).collect()
        }
        _ => vec![decoder],
    }
}

/// The byte of a token like `<0x0A>`.
fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok())?
}

/// GPT-2's printable alphabet for the 256 bytes: printable Latin-1 stands for itself, the other
/// bytes, in order, for the characters from U+0100 on.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let shifted = (0..=u8::MAX).filter(|&byte| !printable(byte));
    let shifted = (0x100..).filter_map(char::from_u32).zip(shifted);
    (0..=u8::MAX).filter(|&b| printable(b)).map(|b| (char::from(b), b)).chain(shifted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_names_every_byte_once() {
        let alphabet = byte_level_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!(alphabet[&'Ġ'], b' ');
        assert_eq!(alphabet[&'Ċ'], b'\n');
    }

    #[test]
    fn a_decoder_that_looks_across_tokens_has_no_plan() {
        let wordpiece = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        assert_eq!(Plan::of(&wordpiece), None);
        let strip_each =
            serde_json::json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
        assert_eq!(Plan::of(&strip_each), None);
    }
}
