//! OpenAI's answers, whole and in chunks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::logprobs::{ChatLogprobs, CompletionLogprobs};
use crate::RequestError;
use crate::gateway::{Delta, Finish, TextEvent, TextRequest, TextStream, Usage};
use crate::http::error::HttpError;
use crate::http::headers;
use crate::served_model::ServedModel;

/// What every answer, or every chunk of it, begins with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) system_fingerprint: String,
}

/// How an endpoint writes choices: whole ones, and pieces of them.
pub(crate) trait Shape: Send + 'static {
    /// A choice that is being put together.
    type Choice: Default + Send;

    /// Adds a delta to a choice.
    fn add(&self, choice: &mut Self::Choice, delta: Delta);

    /// Writes a whole choice.
    fn whole(&self, index: usize, choice: Self::Choice, finish: &Finish) -> serde_json::Value;

    /// Writes the pieces that the event makes, each through `write`. The first event of a choice
    /// comes with `opens`.
    fn pieces(&self, event: &TextEvent, opens: bool, write: &mut dyn FnMut(&dyn Piece));
}

/// Something that can be written as JSON, without knowing what it is.
pub(crate) trait Piece {
    /// Writes it.
    fn write(&self, out: &mut Vec<u8>);
}

/// `/v1/chat/completions`.
pub(crate) struct ChatShape {
    pub(crate) model: Arc<ServedModel>,
    pub(crate) logprobs: bool,
}

/// `/v1/completions`.
pub(crate) struct CompletionShape {
    pub(crate) model: Arc<ServedModel>,
    pub(crate) logprobs: bool,
}

/// A chat choice so far.
#[derive(Default)]
pub(crate) struct ChatSoFar {
    content: String,
    logprobs: ChatLogprobs,
}

/// A completion choice so far.
#[derive(Default)]
pub(crate) struct CompletionSoFar {
    text: String,
    logprobs: CompletionLogprobs,
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

#[derive(Serialize)]
struct CompletionChunk<'a> {
    text: &'a str,
    index: u32,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

/// Tokens, in OpenAI's words.
#[derive(Serialize)]
pub(crate) struct UsageShape {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensDetails,
}

#[derive(Serialize)]
struct PromptTokensDetails {
    cached_tokens: u64,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    envelope: Envelope,
    choices: Vec<serde_json::Value>,
    usage: UsageShape,
}

// === impl Envelope ===

impl Envelope {
    pub(crate) fn new(prefix: &str, object: &'static str, request: &TextRequest) -> Self {
        Self {
            id: format!("{prefix}-{}", request.id),
            object,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            model: request.model.name.clone(),
            system_fingerprint: String::new(),
        }
    }

    /// Says whose answer it is, once that is certain: with the first piece.
    pub(crate) fn answered_by(&mut self, stream: &TextStream) {
        self.system_fingerprint.clone_from(&stream.route().fingerprint);
    }
}

// === impl Finish ===

impl Finish {
    /// OpenAI's name for it.
    fn name(&self) -> &'static str {
        match self {
            Self::StopToken(_) | Self::StopString(_) => "stop",
            Self::Length => "length",
        }
    }
}

// === impl UsageShape ===

impl From<Usage> for UsageShape {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
            prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
        }
    }
}

impl<T: Serialize> Piece for T {
    fn write(&self, out: &mut Vec<u8>) {
        // Our own shapes always can be written, and a vector takes everything.
        let _ = serde_json::to_writer(out, self);
    }
}

// === impl ChatShape ===

impl Shape for ChatShape {
    type Choice = ChatSoFar;

    fn add(&self, choice: &mut ChatSoFar, delta: Delta) {
        choice.content.push_str(&delta.text);
        choice.logprobs.extend(&delta.tokens, &self.model.tokenizer);
    }

    fn whole(&self, index: usize, choice: ChatSoFar, finish: &Finish) -> serde_json::Value {
        serde_json::json!({
            "index": index,
            "message": {"role": "assistant", "content": choice.content, "refusal": null},
            "logprobs": self.logprobs.then_some(choice.logprobs),
            "finish_reason": finish.name(),
        })
    }

    fn pieces(&self, event: &TextEvent, opens: bool, write: &mut dyn FnMut(&dyn Piece)) {
        let chunk = |index, delta| ChatChunk { index, delta, logprobs: None, finish_reason: None };
        let index = event.choice();
        if opens {
            let opening = ChatDelta { role: Some("assistant"), content: Some("") };
            write(&chunk(index, opening));
        }
        match event {
            TextEvent::Delta(delta) => {
                let mut logprobs = ChatLogprobs::default();
                if self.logprobs {
                    logprobs.extend(&delta.tokens, &self.model.tokenizer);
                }
                let logprobs = Some(logprobs).filter(|logprobs| !logprobs.is_empty());
                if !delta.text.is_empty() || logprobs.is_some() {
                    let piece = ChatDelta { role: None, content: Some(&delta.text) };
                    write(&ChatChunk { logprobs, ..chunk(index, piece) });
                }
            }
            TextEvent::Finished { reason, .. } => {
                let finish_reason = Some(reason.name());
                write(&ChatChunk { finish_reason, ..chunk(index, ChatDelta::default()) });
            }
        }
    }
}

// === impl CompletionShape ===

impl Shape for CompletionShape {
    type Choice = CompletionSoFar;

    fn add(&self, choice: &mut CompletionSoFar, delta: Delta) {
        choice.text.push_str(&delta.text);
        choice.logprobs.extend(&delta.tokens, &self.model.tokenizer);
    }

    fn whole(&self, index: usize, choice: CompletionSoFar, finish: &Finish) -> serde_json::Value {
        serde_json::json!({
            "text": choice.text,
            "index": index,
            "logprobs": self.logprobs.then_some(choice.logprobs),
            "finish_reason": finish.name(),
        })
    }

    fn pieces(&self, event: &TextEvent, _opens: bool, write: &mut dyn FnMut(&dyn Piece)) {
        let index = event.choice();
        match event {
            TextEvent::Delta(delta) => {
                let mut logprobs = CompletionLogprobs::default();
                if self.logprobs {
                    logprobs.extend(&delta.tokens, &self.model.tokenizer);
                }
                let logprobs = Some(logprobs).filter(|logprobs| !logprobs.is_empty());
                if !delta.text.is_empty() || logprobs.is_some() {
                    let text = &delta.text;
                    write(&CompletionChunk { text, index, logprobs, finish_reason: None });
                }
            }
            TextEvent::Finished { reason, .. } => {
                let finish_reason = Some(reason.name());
                write(&CompletionChunk { text: "", index, logprobs: None, finish_reason });
            }
        }
    }
}

/// Waits for every choice to end and answers with them all, or with the error that ended them.
pub(crate) async fn respond<S: Shape>(
    shape: &S,
    envelope: Envelope,
    stream: TextStream,
) -> Response {
    let answer = whole(shape, envelope, stream).await;
    answer.unwrap_or_else(|error| HttpError::from(error).into_response())
}

async fn whole<S: Shape>(
    shape: &S,
    mut envelope: Envelope,
    mut stream: TextStream,
) -> Result<Response, RequestError> {
    let mut choices: Vec<(S::Choice, Finish)> = Vec::new();
    choices.resize_with(stream.choices(), || (S::Choice::default(), Finish::Length));
    while let Some(event) = stream.next().await {
        let event = event?;
        let (choice, finish) = &mut choices[event.choice() as usize];
        match event {
            TextEvent::Delta(delta) => shape.add(choice, delta),
            TextEvent::Finished { reason, .. } => *finish = reason,
        }
    }
    envelope.answered_by(&stream);
    let choices = choices.into_iter().enumerate();
    let answer = Whole {
        envelope,
        choices: choices.map(|(index, (so_far, end))| shape.whole(index, so_far, &end)).collect(),
        usage: stream.usage().into(),
    };
    let mut response = Json(answer).into_response();
    headers::add_route(response.headers_mut(), &stream);
    Ok(response)
}
