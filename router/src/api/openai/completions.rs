//! `POST /v1/completions`.

use std::fmt;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use kv_cache::TokenId;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::fields::ignored::Ignored;
use super::fields::integer::Integer;
use super::fields::{self, CommonFields, StreamUsage};
use super::shapes::{self, CompletionShape, Envelope};
use crate::api::sse;
use crate::gateway::params::check_token;
use crate::gateway::{Input, TextRequest};
use crate::http::body;
use crate::http::error::HttpError;
use crate::http::headers::{self, CallIds};
use crate::metrics::Endpoint;
use crate::served_model::ServedModel;
use crate::{Gateway, GatewayLimits, RequestError};

/// What only this endpoint reads.
const OWN: &[&str] = &["echo", "prompt"];
/// OpenAI's default.
const MAX_TOKENS_DEFAULT: u32 = 16;

#[derive(Deserialize)]
struct CompletionFields {
    echo: Option<bool>,
    logprobs: Option<Integer>,
}

/// A request that has been read, and how to answer it.
struct Call {
    request: TextRequest,
    stream: bool,
    usage: StreamUsage,
    ignored: Ignored,
}

/// Answers one request.
pub(super) async fn handle(
    State(gateway): State<Arc<Gateway>>,
    Extension(ids): Extension<CallIds>,
    request: Request,
) -> Response {
    match answer(&gateway, ids, request).await {
        Ok(response) => response,
        Err(error) => {
            gateway.metrics.refused(Endpoint::Completions, error.code.into());
            error.into_response()
        }
    }
}

async fn answer(gateway: &Gateway, ids: CallIds, request: Request) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let (object, received) = body::read_object(request, gateway, ids.client).await?;
    let call = read(gateway, ids, &headers, object)?;
    let logprobs = call.request.params.sampling.logprobs.is_some();
    let shape = CompletionShape { model: Arc::clone(&call.request.model), logprobs };
    let envelope = Envelope::new("cmpl", "text_completion", &call.request);
    let stream = gateway.start(call.request, received).await?;
    let mut response = if call.stream {
        let report = sse::Report { usage: call.usage, keep_alive: gateway.limits().keep_alive };
        sse::respond(shape, envelope, stream, report)
    } else {
        shapes::respond(&shape, envelope, stream).await
    };
    headers::add_ignored(response.headers_mut(), &call.ignored);
    Ok(response)
}

fn read(
    gateway: &Gateway,
    ids: CallIds,
    headers: &HeaderMap,
    mut object: Map<String, Json>,
) -> Result<Call, RequestError> {
    if object.get("suffix").and_then(Json::as_str).is_some_and(|suffix| !suffix.is_empty()) {
        let message = "`suffix` is not supported: this model writes forwards only";
        return Err(RequestError::unsupported("suffix", message));
    }
    let mut ignored = Ignored::new(gateway.config.strict_fields);
    fields::check_names(&object, OWN, &mut ignored)?;
    let prompt = object.shift_remove("prompt").unwrap_or(Json::Null);
    let object = Json::Object(object);
    let common: CommonFields = body::fields(&object)?;
    let own: CompletionFields = body::fields(&object)?;
    let limits = gateway.limits();
    let model = gateway.models().named(common.model.as_deref())?;
    let input = read_prompt(prompt, model, limits)?;
    let (stream, usage) = (common.stream == Some(true), common.stream_usage()?);
    let salt = common.salt()?;
    let echo = own.echo.unwrap_or(false);
    let mut params = common.params()?;
    params.logprobs = own.logprobs.map(Integer::get);
    params.max_tokens_default = Some(MAX_TOKENS_DEFAULT);
    if params.max_tokens == Some(0) && !echo {
        let message = "`max_tokens` can be 0 only with `echo`: there would be no answer";
        return Err(RequestError::invalid("max_tokens", message));
    }
    let params = params.check(model, limits)?;
    check_choices(&input, params.n, limits)?;
    let request = TextRequest {
        id: ids.request,
        endpoint: Endpoint::Completions,
        received: ids.received,
        timeout: headers::timeout(headers, limits.request_timeout)?,
        params: Arc::new(params),
        model: Arc::clone(model),
        input,
        echo,
        salt,
        client: ids.client,
        call: ids.call,
    };
    Ok(Call { request, stream, usage, ignored })
}

/// The four forms of a prompt: a text, texts, token ids, lists of token ids.
fn read_prompt(
    prompt: Json,
    model: &ServedModel,
    limits: &GatewayLimits,
) -> Result<Input, RequestError> {
    let prompts = match prompt {
        Json::String(text) => return Ok(Input::Texts(vec![text])),
        Json::Array(prompts) => prompts,
        Json::Null => return Err(RequestError::invalid("prompt", "`prompt` is missing")),
        other => {
            let message = format!("`prompt` is {}, not a text or an array", body::kind(&other));
            return Err(RequestError::invalid("prompt", message));
        }
    };
    match prompts.first() {
        None => Err(RequestError::invalid("prompt", "`prompt` is an empty array")),
        Some(Json::Number(_)) => Ok(Input::Tokens(vec![tokens(&prompts, "prompt", model)?])),
        _ if prompts.len() > limits.prompts => {
            let message = format!("{} prompts given, at most {}", prompts.len(), limits.prompts);
            Err(RequestError::invalid("prompt", message))
        }
        Some(Json::Array(_)) => {
            let each = prompts.iter().enumerate().map(|(index, prompt)| {
                let at = format!("prompt[{index}]");
                let ids = prompt.as_array().ok_or_else(|| mixed(&at, prompt, "token ids"))?;
                tokens(ids, &at, model)
            });
            each.collect::<Result<_, _>>().map(Input::Tokens)
        }
        Some(_) => {
            let each = prompts.into_iter().enumerate().map(|(index, prompt)| match prompt {
                Json::String(text) => Ok(text),
                other => Err(mixed(format_args!("prompt[{index}]"), &other, "texts")),
            });
            each.collect::<Result<_, _>>().map(Input::Texts)
        }
    }
}

fn tokens(ids: &[Json], at: &str, model: &ServedModel) -> Result<Vec<TokenId>, RequestError> {
    if ids.is_empty() {
        return Err(RequestError::invalid(at, format!("`{at}` is an empty array")));
    }
    // A place is named only where something is wrong: prompts have thousands of tokens.
    let token = |(index, id): (usize, &Json)| match Integer::of(id) {
        Some(number) => check_token(format_args!("{at}[{index}]"), number, model),
        None => Err(mixed(format_args!("{at}[{index}]"), id, "token ids")),
    };
    ids.iter().enumerate().map(token).collect()
}

fn mixed(at: impl fmt::Display, found: &Json, others: &str) -> RequestError {
    RequestError::invalid(
        at.to_string(),
        format!("`{at}` is {}, among {others}", body::kind(found)),
    )
}

fn check_choices(input: &Input, n: u32, limits: &GatewayLimits) -> Result<(), RequestError> {
    let prompts = input.prompts();
    if prompts * n as usize <= limits.choices as usize {
        return Ok(());
    }
    let message =
        format!("{prompts} prompts with `n` {n} are more than {} choices", limits.choices);
    Err(RequestError::invalid("n", message))
}
