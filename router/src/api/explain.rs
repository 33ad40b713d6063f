//! Where a request would go, and why: `POST /v1/route/explain`, with the body of a chat or of a completion.
//!
//! Operators see every worker with the terms of its cost. Everybody else sees of its own prompt what is cached, how soon it would
//! be answered, and whether it would be let in.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use scheduler::Placement;
use scheduler::cost::Terms;
use scheduler::placement::{CachedTokens, Candidate, Verdict};
use serde::Serialize;
use serde_json::{Map, Value};
use words::{Address, Generation};

use super::Endpoint;
use super::endpoint::{Api, Reading};
use super::ignored::Ignored;
use super::openai::{Chat, Completions};
use crate::callers::caller;
use crate::dispatch::{DispatchError, Explained};
use crate::gateway::{Task, TextRequest};
use crate::http::body;
use crate::http::error::HttpError;
use crate::http::headers::CallIds;
use crate::{Gateway, RequestError};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/v1/route/explain",
    about: "tells where a chat or a completion would go, and why",
    route: || post(answer),
};

const NAME: caller::Endpoint = caller::Endpoint("explain");

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    model: String,
    prompts: Vec<PromptAnswer>,
}

#[derive(Serialize)]
struct PromptAnswer {
    prompt_tokens: usize,
    /// Where it would be computed.
    cached_tokens: u32,
    ttft_ms: Option<f64>,
    refusal: Option<RefusalAnswer>,
    #[serde(flatten)]
    inside: Option<Inside>,
}

#[derive(Serialize)]
struct RefusalAnswer {
    message: String,
    retry_after_ms: Option<u64>,
}

/// What strangers need not know.
#[derive(Serialize)]
struct Inside {
    placement: Option<PlacementAnswer>,
    candidates: Vec<CandidateAnswer>,
}

#[derive(Serialize)]
struct PlacementAnswer {
    path: &'static str,
    reason: &'static str,
    /// The chosen one, then those to try after it.
    prefill_workers: Vec<String>,
    decode_worker: String,
    terms_ms: TermsAnswer,
}

#[derive(Serialize)]
struct CandidateAnswer {
    worker: String,
    part: &'static str,
    /// `possible`, `beyond-target`, or what ruled it out.
    verdict: &'static str,
    cached_tokens: CachedAnswer,
    terms_ms: Option<TermsAnswer>,
}

/// Leading tokens, by the slowest tier that they take.
#[derive(Serialize)]
struct CachedAnswer {
    device: u32,
    host: u32,
    disk: u32,
}

#[derive(Serialize)]
struct TermsAnswer {
    queue: f64,
    prefill: f64,
    handoff: f64,
    decode: f64,
    tokens: f64,
    stall: f64,
    cost: f64,
}

async fn answer(
    State(gateway): State<Arc<Gateway>>,
    Extension(ids): Extension<CallIds>,
    request: Request,
) -> Response {
    match try_answer(&gateway, ids, request).await {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => {
            gateway.refused(NAME, error.code);
            error.into_response()
        }
    }
}

async fn try_answer(
    gateway: &Gateway,
    ids: CallIds,
    request: Request,
) -> Result<Answer, HttpError> {
    let headers = request.headers().clone();
    let (object, received) = body::read_object(request, gateway, ids.client).await?;
    let names_workers = gateway.names_workers_to(gateway.keys.of(ids.client).as_deref());
    let task = read(object, gateway, &ids)?;
    let model = task.model.name.clone();
    let caller = ids.caller(NAME, &headers, gateway.limits().request_timeout)?;
    let explained = gateway.explain(TextRequest { caller, task }, received).await?;
    let prompts = explained
        .into_iter()
        .map(|(generation, explained)| PromptAnswer::of(&generation, explained, names_workers));
    Ok(Answer { object: "route.explanation", model, prompts: prompts.collect() })
}

/// A chat has messages; a completion has not.
fn read(
    object: Map<String, Value>,
    gateway: &Gateway,
    ids: &CallIds,
) -> Result<Task, RequestError> {
    let ignored = Ignored::new(gateway.config.strict_fields);
    let mut reading = Reading { gateway, id: &ids.request, ignored };
    if object.contains_key("messages") {
        return Ok(Chat::read(object, &mut reading)?.task);
    }
    if !object.contains_key("prompt") {
        let message = "send what would be sent to be answered: `messages` of a chat, or the `prompt` of a completion";
        return Err(RequestError::invalid("messages", message));
    }
    Ok(Completions::read(object, &mut reading)?.task)
}

// === impl PromptAnswer ===

impl PromptAnswer {
    fn of(generation: &Generation, explained: Explained, names_workers: bool) -> Self {
        let Explained { decision, candidates } = explained;
        let placement = decision.as_ref().ok();
        let inside = names_workers.then(|| Inside {
            placement: placement.map(PlacementAnswer::of),
            candidates: candidates.iter().map(CandidateAnswer::of).collect(),
        });
        Self {
            prompt_tokens: generation.prompt.len(),
            cached_tokens: placement.map_or(0, |placement| placement.cached_tokens),
            ttft_ms: placement.map(|placement| ms(placement.estimated_ttft_s)),
            refusal: decision.as_ref().err().map(RefusalAnswer::of),
            inside,
        }
    }
}

// === impl RefusalAnswer ===

impl RefusalAnswer {
    fn of(error: &DispatchError) -> Self {
        let retry_after = error.retry_after.map(|after| after.as_millis());
        let retry_after_ms = retry_after.map(|after| u64::try_from(after).unwrap_or(u64::MAX));
        Self { message: error.message.clone(), retry_after_ms }
    }
}

// === impl PlacementAnswer ===

impl PlacementAnswer {
    fn of(placement: &Placement) -> Self {
        let name = |address: &Address| address.worker.to_string();
        Self {
            path: placement.path.name(),
            reason: placement.reason.name(),
            prefill_workers: placement.prefill.iter().map(name).collect(),
            decode_worker: name(&placement.decode),
            terms_ms: TermsAnswer::of(placement.terms),
        }
    }
}

// === impl CandidateAnswer ===

impl CandidateAnswer {
    fn of(candidate: &Candidate) -> Self {
        let (verdict, terms) = match candidate.verdict {
            Verdict::Possible(terms) => ("possible", Some(terms)),
            Verdict::Strained(terms) => ("beyond-target", Some(terms)),
            Verdict::Rejected(rejection) => (rejection.name(), None),
        };
        let CachedTokens { device, host, disk } = candidate.cached;
        Self {
            worker: candidate.worker.to_string(),
            part: candidate.part.name(),
            verdict,
            cached_tokens: CachedAnswer { device, host, disk },
            terms_ms: terms.map(TermsAnswer::of),
        }
    }
}

// === impl TermsAnswer ===

impl TermsAnswer {
    fn of(terms: Terms) -> Self {
        Self {
            queue: ms(terms.queue_s),
            prefill: ms(terms.prefill_s),
            handoff: ms(terms.handoff_s),
            decode: ms(terms.decode_s),
            tokens: ms(terms.tokens_s),
            stall: ms(terms.stall_s),
            cost: ms(terms.cost_s()),
        }
    }
}

/// To the microsecond.
fn ms(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}
