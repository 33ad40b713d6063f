//! Choices of a completion.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::super::chunks::{Chunk, Shape, finish_name};
use super::super::logprobs::CompletionLogprobs;
use crate::api::relay::Said;
use crate::gateway::TextEvent;
use crate::served_model::ServedModel;
use crate::text::reply::{Part, Piece};

/// How `/v1/completions` writes choices.
pub(crate) struct CompletionShape {
    pub(super) model: Arc<ServedModel>,
    pub(super) logprobs: bool,
}

#[derive(Serialize)]
struct CompletionChunk<'a> {
    text: &'a str,
    index: u32,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

// === impl CompletionShape ===

impl CompletionShape {
    fn logprobs(&self, piece: &Piece, logprobs: &mut CompletionLogprobs) {
        if self.logprobs {
            logprobs.extend(&piece.tokens, &self.model.tokenizer);
        }
    }
}

impl Shape for CompletionShape {
    const ID: &'static str = "cmpl";
    const OBJECT: &'static str = "text_completion";
    const CHUNK: &'static str = "text_completion";

    fn whole(&self, index: usize, said: Said) -> Json {
        let (mut all, mut logprobs) = (String::new(), CompletionLogprobs::default());
        for piece in &said.pieces {
            all.push_str(text(piece));
            self.logprobs(piece, &mut logprobs);
        }
        json!({
            "text": all,
            "index": index,
            "logprobs": self.logprobs.then_some(logprobs),
            "finish_reason": finish_name(&said.finish),
        })
    }

    fn chunks(&self, event: &TextEvent, _opens: bool, write: &mut dyn FnMut(&dyn Chunk)) {
        let index = event.choice();
        match event {
            TextEvent::Piece { piece, .. } => {
                let mut logprobs = CompletionLogprobs::default();
                self.logprobs(piece, &mut logprobs);
                let logprobs = Some(logprobs).filter(|logprobs| !logprobs.is_empty());
                let text = text(piece);
                if !text.is_empty() || logprobs.is_some() {
                    write(&CompletionChunk { text, index, logprobs, finish_reason: None });
                }
            }
            TextEvent::Finished { reason, .. } => {
                let finish_reason = Some(finish_name(reason));
                write(&CompletionChunk { text: "", index, logprobs: None, finish_reason });
            }
        }
    }
}

/// What of a piece is text: a prompt that was asked for is, and all that follows on it.
fn text(piece: &Piece) -> &str {
    match piece.part {
        Part::Prompt | Part::Content => &piece.text,
    }
}
