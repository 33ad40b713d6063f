//! Text that a client sends, on its way to tokens and back.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use router::text::{
    ChatRender, ChatTemplate, ControlTokens, Detokenizer, Effort, StopMatcher, StopSet, Tokenizer,
};
use serde_json::json;

use crate::fixtures::demo_model;
use crate::{Cost, Target};

pub(in crate::targets) const TARGET: Target =
    Target::new("text", run).with_cost(Cost { cpu_max: Duration::from_secs(2), ..Cost::USUAL });

/// Texts from here on are cut into pieces that are tokenized one by one.
const CUT_BYTES: usize = 20 << 10;

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    Arc::new(
        Tokenizer::from_file(&demo_model().join("tokenizer.json")).expect("the demo tokenizer"),
    )
});

static TEMPLATE: LazyLock<ChatTemplate> = LazyLock::new(|| {
    let folder = model_folder::ModelFolder::open(&demo_model()).expect("the demo model");
    ChatTemplate::from_folder(&folder).expect("the demo template").expect("a template")
});

static CONTROL: LazyLock<ControlTokens> =
    LazyLock::new(|| ControlTokens::of(&TOKENIZER, &TEMPLATE).expect("the demo tokenizer"));

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let tokens = whole(text);
    // One of many is made long, which takes a hundred times as long. By a sum, as most changes change it.
    if text.bytes().fold(0, u8::wrapping_add) == 41 {
        whole(&text.repeat(CUT_BYTES.div_ceil(text.len())));
    }
    back(text, &tokens);
    spelled(text);
}

/// Piece by piece is as in one piece, and as much as fits is as much as fits.
fn whole(text: &str) -> Vec<u32> {
    let (tokenizer, effort) = (&*TOKENIZER, Effort::default());
    let wanted = tokenizer.encode(text, false).expect("any text has tokens");
    let chat = tokenizer.encode_chat(text, &Arc::default(), &effort).expect("any text has tokens");
    assert_eq!(chat, wanted, "{text:?}");
    let prompt = tokenizer.encode_prompt(text, &effort).expect("any text has tokens");
    assert_eq!(prompt, tokenizer.encode(text, true).expect("any text has tokens"), "{text:?}");
    if let Some(less) = prompt.len().checked_sub(1) {
        let effort = Effort { tokens_max: less, ..Effort::default() };
        assert!(tokenizer.encode_prompt(text, &effort).is_err(), "{text:?}");
    }
    wanted
}

/// Token by token is as all at once, also where stop strings watch.
fn back(text: &str, tokens: &[u32]) {
    let mut detokenizer = Detokenizer::new(TOKENIZER.clone(), &[], false);
    let mut pieces = Vec::new();
    for &token in tokens {
        let mut piece = String::new();
        detokenizer.push(token, &mut piece);
        pieces.push(piece);
    }
    let mut rest = String::new();
    detokenizer.finish(&mut rest);
    pieces.push(rest);
    let read = pieces.concat();
    assert_eq!(read, TOKENIZER.decode(tokens, false).expect("tokens of a text"));
    stop(text, &pieces, &read);
}

/// What is given out ends where the first of the stop strings begins.
fn stop(text: &str, pieces: &[String], read: &str) {
    let stops: Vec<String> = text
        .split('\n')
        .filter(|stop| !stop.is_empty())
        .skip(1)
        .take(4)
        .map(str::to_owned)
        .collect();
    let mut matcher = StopMatcher::new(Arc::new(StopSet::new(stops.clone())), false);
    let mut out = String::new();
    for piece in pieces {
        if matcher.push(piece, &mut out).is_some() {
            // The first to end, and of those the longest: it begins first.
            let ends = stops
                .iter()
                .filter_map(|stop| Some((read.find(stop.as_str())? + stop.len(), stop.len())));
            let (end, length) = ends
                .min_by_key(|&(end, length)| (end, std::cmp::Reverse(length)))
                .expect("a stop string");
            assert_eq!(out, read[..end - length], "{stops:?}");
            return;
        }
    }
    matcher.finish(&mut out);
    assert_eq!(out, *read);
    assert!(!stops.iter().any(|stop| read.contains(stop.as_str())), "{stops:?} in {read:?}");
}

/// Control tokens that a message spells are none: as many are in the prompt as without its text.
fn spelled(text: &str) {
    let count = |content: &str| {
        let messages = vec![json!({"role": "user", "content": content})];
        let mut chat = ChatRender { messages, ..ChatRender::default() };
        CONTROL.mark(&mut chat);
        let prompt = TEMPLATE.render(chat).expect("a message");
        let tokens = CONTROL
            .encode(&prompt, &Arc::default(), &Effort::default())
            .expect("any text has tokens");
        tokens.iter().filter(|&&token| TOKENIZER.is_special(token)).count()
    };
    assert_eq!(count(text), count("a"), "{text:?}");
}
