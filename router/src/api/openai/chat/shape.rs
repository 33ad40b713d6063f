//! Choices of a chat.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::super::chunks::{Chunk, Shape, finish_name};
use super::super::logprobs::ChatLogprobs;
use crate::api::relay::Said;
use crate::gateway::TextEvent;
use crate::served_model::ServedModel;
use crate::text::reply::{Part, Piece};

/// How `/v1/chat/completions` writes choices.
pub(crate) struct ChatShape {
    pub(super) model: Arc<ServedModel>,
    pub(super) logprobs: bool,
}

#[derive(Serialize)]
struct ChatChunk<'a> {
    index: u32,
    delta: ChatDelta<'a>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct ChatDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

// === impl ChatShape ===

impl Shape for ChatShape {
    const ID: &'static str = "chatcmpl";
    const OBJECT: &'static str = "chat.completion";
    const CHUNK: &'static str = "chat.completion.chunk";

    fn whole(&self, index: usize, said: Said) -> Json {
        let (mut text, mut logprobs) = (String::new(), ChatLogprobs::default());
        for piece in &said.pieces {
            text.push_str(content(piece));
            logprobs.extend(&piece.tokens, &self.model.tokenizer);
        }
        json!({
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": self.logprobs.then_some(logprobs),
            "finish_reason": finish_name(&said.finish),
        })
    }

    fn chunks(&self, event: &TextEvent, opens: bool, write: &mut dyn FnMut(&dyn Chunk)) {
        let chunk = |index, delta| ChatChunk { index, delta, logprobs: None, finish_reason: None };
        let index = event.choice();
        if opens {
            let opening = ChatDelta { role: Some("assistant"), content: Some("") };
            write(&chunk(index, opening));
        }
        match event {
            TextEvent::Piece { piece, .. } => {
                let mut logprobs = ChatLogprobs::default();
                if self.logprobs {
                    logprobs.extend(&piece.tokens, &self.model.tokenizer);
                }
                let logprobs = Some(logprobs).filter(|logprobs| !logprobs.is_empty());
                let text = content(piece);
                if !text.is_empty() || logprobs.is_some() {
                    let delta = ChatDelta { role: None, content: Some(text) };
                    write(&ChatChunk { logprobs, ..chunk(index, delta) });
                }
            }
            TextEvent::Finished { reason, .. } => {
                let finish_reason = Some(finish_name(reason));
                write(&ChatChunk { finish_reason, ..chunk(index, ChatDelta::default()) });
            }
        }
    }
}

/// What of a piece is the message's content. A conversation is not given back.
fn content(piece: &Piece) -> &str {
    match piece.part {
        Part::Content => &piece.text,
        Part::Prompt => "",
    }
}
