//! Replies, as the wire has them.

use std::collections::VecDeque;

use proto::v1;
use proto::v1::inference_response::{ChoiceFinished, Delta, Event, Started, Usage};
use tonic::Status as WireStatus;
use words::{TokenLogprob, WorkerId};

use crate::RequestError;
use crate::api::relay::Writer;
use crate::callers::access::{Call, Status};
use crate::gateway::{Finish, TextEvent, TextRequest, TextStream};
use crate::text::reply::{Part, Piece};

/// One message of a reply, or why there is no more.
pub(super) type Message = Result<v1::InferenceResponse, WireStatus>;

/// Writes one reply.
pub(super) struct Messages {
    /// Whether the client gets to know which workers served it.
    pub(super) names_workers: bool,
    pub(super) call: Call,
}

// === impl Messages ===

impl Writer for Messages {
    type Out = VecDeque<Message>;

    fn event(&mut self, event: TextEvent, _: &TextStream, out: &mut Self::Out) {
        out.push_back(message(match event {
            TextEvent::Piece { choice, piece } => Event::Delta(delta(choice, piece)),
            TextEvent::Finished { choice, reason } => Event::Finished(finished(choice, reason)),
        }));
    }

    fn end(&mut self, stream: &TextStream, out: &mut Self::Out) {
        out.push_back(message(Event::Usage(self.usage(stream))));
    }

    fn fail(&mut self, error: RequestError, out: &mut Self::Out) {
        out.push_back(Err(refused(&self.call, &error)));
    }
}

impl Messages {
    fn usage(&self, stream: &TextStream) -> Usage {
        let (usage, route) = (stream.usage(), stream.route());
        let name = |worker: Option<&WorkerId>| {
            worker.filter(|_| self.names_workers).map(ToString::to_string).unwrap_or_default()
        };
        Usage {
            prompt_tokens: usage.prompt_tokens as u32,
            completion_tokens: usage.completion_tokens as u32,
            cached_tokens: usage.cached_tokens as u32,
            handoff: route.prefill.is_some(),
            prefill_worker_id: name(route.prefill.as_ref()),
            decode_worker_id: name(Some(&route.decode)),
            system_fingerprint: route.fingerprint.clone(),
        }
    }
}

/// The first message of a reply to `request`, once it has been started.
pub(super) fn started(request: &TextRequest) -> impl FnOnce(&TextStream) -> Message + use<> {
    let (request_id, model) = (request.caller.id.to_string(), request.task.model.name.clone());
    |stream| {
        let prompt_tokens = stream.usage().prompt_tokens as u32;
        message(Event::Started(Started { request_id, model, prompt_tokens }))
    }
}

/// Notes why a call is refused, or broke off.
pub(super) fn refused(call: &Call, error: &RequestError) -> WireStatus {
    let status = error.status();
    call.answered(Status::Grpc(status.code()));
    call.failed(error.into());
    status
}

fn message(event: Event) -> Message {
    Ok(v1::InferenceResponse { event: Some(event) })
}

fn delta(choice: u32, piece: Piece) -> Delta {
    let text = match piece.part {
        Part::Prompt | Part::Content => piece.text,
    };
    let logprob = |found: &TokenLogprob| found.into();
    let logprobs = piece.tokens.iter().filter_map(|token| token.logprob.as_ref().map(logprob));
    Delta {
        choice,
        text,
        token_ids: piece.tokens.iter().map(|token| token.id).collect(),
        logprobs: logprobs.collect(),
    }
}

fn finished(choice: u32, reason: Finish) -> ChoiceFinished {
    let (kind, stop) = match reason {
        Finish::StopToken(_) => (v1::FinishKind::Stop, None),
        Finish::StopString(stop) => (v1::FinishKind::Stop, Some(stop)),
        Finish::Length => (v1::FinishKind::Length, None),
    };
    ChoiceFinished { choice, kind: kind.into(), stop }
}
