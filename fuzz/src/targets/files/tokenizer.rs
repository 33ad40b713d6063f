//! A `tokenizer.json`, and a text for it.

use std::sync::Arc;

use router::text::{Detokenizer, Effort, Tokenizer};

use crate::words::sections;
use crate::{Cost, Target};

/// Far more than a text of some KiB has.
const TOKENS_MAX: usize = 16 << 10;

pub(in crate::targets) const TARGET: Target = Target::new("tokenizer", run).with_cost(Cost {
    bytes_max: 8 << 10,
    memory_bytes_max: 64 << 20,
    ..Cost::USUAL
});

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut parts = sections(text);
    let file = parts.next().map_or("", |(_, file)| file);
    let text = parts.next().map_or("a text of 3 words,\nà écrire", |(_, text)| text);
    match Tokenizer::from_bytes(file.as_bytes()) {
        Ok(tokenizer) => encode(&Arc::new(tokenizer), text),
        Err(error) => assert!(error.to_string().len() < 4 << 10, "{error}"),
    }
}

fn encode(tokenizer: &Arc<Tokenizer>, text: &str) {
    let effort = Effort { tokens_max: TOKENS_MAX, ..Effort::default() };
    let _ = tokenizer.encode_prompt(text, &effort).inspect(|it| assert!(it.len() <= TOKENS_MAX));
    // What a file puts around a prompt need not be in its vocabulary.
    let Ok(tokens) = tokenizer.encode(text, false) else { return };
    let mut detokenizer = Detokenizer::new(Arc::clone(tokenizer), &[], true);
    let mut read = String::new();
    for token in tokens {
        assert!(token < tokenizer.vocab_tokens(), "token {token} of {}", tokenizer.vocab_tokens());
        let _ = tokenizer.token_bytes(token);
        detokenizer.push(token, &mut read);
    }
    detokenizer.finish(&mut read);
}
