use std::sync::Arc;

use proptest::prelude::*;

use super::stop::StopSet;
use super::*;
use crate::testing::{HELLO, byte_level_json, tokenizer};

/// A reply that stops at `stop`, of a model whose first 256 tokens are bytes.
fn reply(stop: &str) -> Reply {
    let tokenizer = tokenizer(&byte_level_json());
    let stops = Arc::new(StopSet::new(vec![stop.to_owned()]));
    Reply::new(Detokenizer::new(tokenizer, &[], true), StopMatcher::new(stops, false))
}

fn byte(index: usize, byte: u8) -> SampledToken {
    SampledToken { choice: 0, index: index as u32, token: byte.into(), logprob: None }
}

fn ids(piece: &Piece) -> Vec<TokenId> {
    piece.tokens.iter().map(|token| token.id).collect()
}

#[test]
fn a_token_goes_with_the_text_that_begins_in_it() {
    let mut reply = reply("ab");
    assert_eq!(reply.read(byte(0, b'x'), true), None);
    let piece = reply.take().unwrap();
    assert_eq!((piece.part, &*piece.text, ids(&piece)), (Part::Content, "x", vec![b'x'.into()]));
    assert_eq!(reply.read(byte(1, b'a'), true), None);
    assert_eq!(reply.take(), None, "`a` may be the beginning of a stop string");
    assert_eq!(reply.read(byte(2, b'c'), true), None);
    let piece = reply.take().unwrap();
    assert_eq!((&*piece.text, ids(&piece)), ("ac", vec![b'a'.into(), b'c'.into()]));
}

#[test]
fn of_a_token_whose_text_is_cut_off_nothing_is_told() {
    let hello = SampledToken { token: HELLO, ..byte(1, 0) };
    for (stop, told) in [("h", 1), ("e", 2), ("xh", 0)] {
        let mut reply = reply(stop);
        reply.read(byte(0, b'x'), true);
        assert_eq!(reply.read(hello.clone(), true), Some(StopMatch { stop: 0 }));
        assert_eq!(reply.take().map_or(0, |piece| piece.tokens.len()), told, "{stop}");
    }
}

#[test]
fn a_reply_goes_on_where_its_prompt_ends() {
    let mut reply = reply("xy");
    let prompt = reply.echo("h\u{e9}xy", Vec::new());
    assert_eq!((prompt.part, &*prompt.text), (Part::Prompt, "h\u{e9}xy"));
    reply.read(byte(0, b'z'), true);
    assert_eq!(reply.take().unwrap().tokens[0].offset, 4, "in characters");
}

#[test]
fn nothing_stops_a_reply_that_may_not_stop_yet() {
    let mut reply = reply("a");
    assert_eq!(reply.read(byte(0, b'a'), false), None);
    assert_eq!(reply.take().unwrap().text, "a");
    assert_eq!(reply.read(byte(1, b'a'), true), Some(StopMatch { stop: 0 }));
}

proptest! {
    /// However the text falls into tokens and whenever it is taken, the text is the same, and each token comes once.
    #[test]
    fn pieces_are_the_text_and_its_tokens_in_order(
        text in "[ab\u{e9}]{0,20}",
        taken in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let mut reply = reply("bab");
        let mut pieces = Vec::new();
        let mut stopped = false;
        for (index, one) in text.bytes().enumerate() {
            stopped = reply.read(byte(index, one), true).is_some();
            if taken[index] {
                pieces.extend(reply.take());
            }
            if stopped {
                break;
            }
        }
        if !stopped {
            prop_assert_eq!(reply.finish(), None);
        }
        pieces.extend(reply.take());
        let said: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
        prop_assert_eq!(&*said, text.split("bab").next().unwrap());
        let tokens: Vec<TokenId> = pieces.iter().flat_map(ids).collect();
        // Of a stop string nothing is told.
        let told = if stopped { said.len() } else { text.len() };
        let bytes: Vec<TokenId> = text.bytes().take(told).map(TokenId::from).collect();
        prop_assert_eq!(tokens, bytes);
    }
}
