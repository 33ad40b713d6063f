//! OpenAI's replies, whole and in chunks: what chat and completions have in common.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value as Json;
use words::RequestId;

use super::errors;
use super::fields::StreamUsage;
use super::usage::UsageShape;
use crate::RequestError;
use crate::api::relay::{Reply, Said, Writer};
use crate::gateway::{Finish, TextEvent, TextStream, Usage};
use crate::served_model::ServedModel;

/// The end of a chunk that could tell of tokens, and doesn't.
const UNUSED: &[u8] = b"],\"usage\":null}\n\n";

/// How an endpoint writes choices: whole ones, and pieces of them.
pub(crate) trait Shape: Send + 'static {
    /// What its ids begin with.
    const ID: &'static str;
    /// What it calls a whole reply, and a chunk of one.
    const OBJECT: &'static str;
    const CHUNK: &'static str;

    /// Writes a whole choice.
    fn whole(&self, index: usize, said: Said) -> Json;

    /// Writes the chunks that the event makes, each through `write`. The first event of a choice
    /// comes with `opens`.
    fn chunks(&self, event: &TextEvent, opens: bool, write: &mut dyn FnMut(&dyn Chunk));
}

/// Something that can be written as JSON, without knowing what it is.
pub(crate) trait Chunk {
    /// Writes it.
    fn write(&self, out: &mut Vec<u8>);
}

/// Writes one reply.
pub(crate) struct OpenAiReply<S> {
    shape: S,
    envelope: Envelope,
    usage: StreamUsage,
    /// Every chunk begins with this and ends with `tail`; the choice goes between. Empty before the
    /// first.
    head: Vec<u8>,
    tail: Vec<u8>,
    /// The choices that have begun.
    opened: Vec<bool>,
}

/// What every reply, or every chunk of it, begins with.
#[derive(Clone, Debug, Serialize)]
struct Envelope {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
}

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    envelope: Envelope,
    choices: Vec<Json>,
    usage: UsageShape,
}

#[derive(Serialize)]
struct UsageChunk<'a> {
    #[serde(flatten)]
    envelope: &'a Envelope,
    choices: [(); 0],
    usage: UsageShape,
}

impl<T: Serialize> Chunk for T {
    fn write(&self, out: &mut Vec<u8>) {
        // Our own shapes always can be written, and a vector takes everything.
        let _ = serde_json::to_writer(out, self);
    }
}

// === impl OpenAiReply ===

impl<S: Shape> OpenAiReply<S> {
    /// A reply to the request `id`, whole or, where `usage` says how to tell of tokens, as chunks.
    pub(super) fn new(
        shape: S,
        id: &RequestId,
        model: &ServedModel,
        usage: Option<StreamUsage>,
    ) -> Self {
        let envelope = Envelope {
            id: format!("{}-{id}", S::ID),
            object: if usage.is_some() { S::CHUNK } else { S::OBJECT },
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            model: model.name.clone(),
            system_fingerprint: String::new(),
        };
        let usage = usage.unwrap_or_default();
        // With usage asked for, every chunk has the field.
        let tail = if usage.last { UNUSED.to_vec() } else { b"]}\n\n".to_vec() };
        Self { shape, envelope, usage, head: Vec::new(), tail, opened: Vec::new() }
    }

    /// Writes what chunks begin with: who answers is certain with the first of them.
    fn open(&mut self, stream: &TextStream) {
        self.envelope.answered_by(stream);
        self.opened = vec![false; stream.choices()];
        self.head = b"data: ".to_vec();
        self.envelope.write(&mut self.head);
        self.head.pop();
        self.head.extend_from_slice(b",\"choices\":[");
    }
}

impl<S: Shape> Writer for OpenAiReply<S> {
    type Out = Vec<u8>;

    fn event(&mut self, event: TextEvent, stream: &TextStream, out: &mut Vec<u8>) {
        if self.head.is_empty() {
            self.open(stream);
        }
        let opened = &mut self.opened[event.choice() as usize];
        let opens = !std::mem::replace(opened, true);
        if self.usage.running {
            self.tail = running(stream.usage());
        }
        let Self { shape, head, tail, .. } = self;
        shape.chunks(&event, opens, &mut |chunk| {
            out.extend_from_slice(head);
            chunk.write(out);
            out.extend_from_slice(tail);
        });
    }

    fn end(&mut self, stream: &TextStream, out: &mut Vec<u8>) {
        if self.usage.last {
            let usage = stream.usage().into();
            out.extend_from_slice(b"data: ");
            UsageChunk { envelope: &self.envelope, choices: [], usage }.write(out);
            out.extend_from_slice(b"\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    /// The status has long been sent: the error goes where the next chunk would have gone, and
    /// there is no `[DONE]`.
    fn fail(&mut self, error: RequestError, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: error\ndata: ");
        out.extend(errors::body(&error.into()));
        out.extend_from_slice(b"\n\n");
    }
}

impl<S: Shape> Reply for OpenAiReply<S> {
    fn whole(self, choices: Vec<Said>, stream: &TextStream) -> Vec<u8> {
        let Self { shape, mut envelope, .. } = self;
        envelope.answered_by(stream);
        let choices = choices.into_iter().enumerate();
        let choices = choices.map(|(index, said)| shape.whole(index, said)).collect();
        let mut out = Vec::new();
        Whole { envelope, choices, usage: stream.usage().into() }.write(&mut out);
        out
    }
}

/// The end of a chunk that tells of the tokens so far.
fn running(usage: Usage) -> Vec<u8> {
    let mut tail = b"],\"usage\":".to_vec();
    UsageShape::from(usage).write(&mut tail);
    tail.extend_from_slice(b"}\n\n");
    tail
}

// === impl Envelope ===

impl Envelope {
    /// Says whose answer it is, once that is certain: with the first piece.
    fn answered_by(&mut self, stream: &TextStream) {
        self.system_fingerprint.clone_from(&stream.route().fingerprint);
    }
}

/// OpenAI's name for an end.
pub(super) fn finish_name(finish: &Finish) -> &'static str {
    match finish {
        Finish::StopToken(_) | Finish::StopString(_) => "stop",
        Finish::Length => "length",
    }
}
