//! `POST /v1/chat/completions`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::fields::ignored::Ignored;
use super::fields::integer::Integer;
use super::fields::{self, CommonFields, StreamUsage};
use super::messages::MessageRules;
use super::shapes::{self, ChatShape, Envelope};
use crate::api::sse;
use crate::gateway::{Input, TextRequest};
use crate::http::body;
use crate::http::error::HttpError;
use crate::http::headers::{self, CallIds};
use crate::metrics::Endpoint;
use crate::text::ChatRender;
use crate::{Gateway, RequestError};

/// What only this endpoint reads.
const OWN: &[&str] = &[
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "documents",
    "max_completion_tokens",
    "messages",
    "reasoning_effort",
    "response_format",
    "tool_choice",
    "tools",
    "top_logprobs",
];

#[derive(Deserialize)]
struct ChatFields {
    max_completion_tokens: Option<Integer>,
    logprobs: Option<bool>,
    top_logprobs: Option<Integer>,
    response_format: Option<ResponseFormat>,
    tools: Option<Vec<Json>>,
    tool_choice: Option<Json>,
    documents: Option<Vec<Json>>,
    reasoning_effort: Option<String>,
    add_generation_prompt: Option<bool>,
    continue_final_message: Option<bool>,
    chat_template_kwargs: Option<Map<String, Json>>,
}

#[derive(Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
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
            gateway.metrics.refused(Endpoint::Chat, error.code.into());
            error.into_response()
        }
    }
}

async fn answer(gateway: &Gateway, ids: CallIds, request: Request) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let (object, received) = body::read_object(request, gateway, ids.client).await?;
    let call = read(gateway, ids, &headers, object)?;
    let logprobs = call.request.params.sampling.logprobs.is_some();
    let shape = ChatShape { model: Arc::clone(&call.request.model), logprobs };
    let object = if call.stream { "chat.completion.chunk" } else { "chat.completion" };
    let envelope = Envelope::new("chatcmpl", object, &call.request);
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
    let mut ignored = Ignored::new(gateway.config.strict_fields);
    fields::check_names(&object, OWN, &mut ignored)?;
    let messages = object.shift_remove("messages").unwrap_or(Json::Null);
    if messages.is_null() {
        return Err(RequestError::invalid("messages", "`messages` is missing"));
    }
    let object = Json::Object(object);
    let common: CommonFields = body::fields(&object)?;
    let own: ChatFields = body::fields(&object)?;
    let model = gateway.models().named(common.model.as_deref())?;
    let rules = MessageRules { most: gateway.limits().messages, template: model.template.as_ref() };
    let messages = rules.check(messages, &mut ignored)?;
    let (stream, usage) = (common.stream == Some(true), common.stream_usage()?);
    let salt = common.salt()?;
    let mut params = common.params()?;
    params.logprobs = own.logprobs()?;
    params.logprobs_name = "top_logprobs";
    if let Some(most) = own.max_completion_tokens {
        params.max_tokens = Some(most.get());
        params.max_tokens_name = "max_completion_tokens";
    }
    if params.max_tokens == Some(0) {
        let name = params.max_tokens_name;
        return Err(RequestError::invalid(
            name,
            format!("`{name}` is 0, less than the minimum of 1"),
        ));
    }
    let request = TextRequest {
        id: ids.request,
        endpoint: Endpoint::Chat,
        received: ids.received,
        timeout: headers::timeout(headers, gateway.limits().request_timeout)?,
        params: Arc::new(params.check(model, gateway.limits())?),
        model: Arc::clone(model),
        input: Input::Chat(Box::new(own.render(messages)?)),
        echo: false,
        salt,
        client: ids.client,
        call: ids.call,
    };
    Ok(Call { request, stream, usage, ignored })
}

// === impl ChatFields ===

impl ChatFields {
    /// Alternatives per token; `None` for no log probabilities.
    fn logprobs(&self) -> Result<Option<i64>, RequestError> {
        match (self.logprobs, self.top_logprobs) {
            (Some(true), top) => Ok(Some(top.map_or(0, Integer::get))),
            (_, top) if top.is_none_or(|top| top.get() == 0) => Ok(None),
            _ => {
                let message = "`top_logprobs` goes with `logprobs: true` only";
                Err(RequestError::invalid("top_logprobs", message))
            }
        }
    }

    fn render(self, messages: Vec<Json>) -> Result<ChatRender, RequestError> {
        if let Some(format) = self.response_format.filter(|format| format.kind != "text") {
            let kind = format.kind;
            let message = format!("the response format `{kind}` is not supported yet; use `text`");
            return Err(RequestError::unsupported("response_format", message));
        }
        let continues = self.continue_final_message.unwrap_or(false);
        if continues && self.add_generation_prompt == Some(true) {
            let message = "a last message that is continued can't be followed by a new one: \
                           leave out `add_generation_prompt`";
            return Err(RequestError::invalid("continue_final_message", message));
        }
        let mut variables = self.chat_template_kwargs.unwrap_or_default();
        if let Some(effort) = self.reasoning_effort {
            variables.entry("reasoning_effort").or_insert(effort.into());
        }
        Ok(ChatRender {
            messages,
            tools: tools(self.tools, self.tool_choice.as_ref())?,
            documents: self.documents,
            add_generation_prompt: self.add_generation_prompt.unwrap_or(true) && !continues,
            continue_final_message: continues,
            variables,
            now: SystemTime::now(),
        })
    }
}

/// The tools that the model gets to see: none if it may not call any.
fn tools(
    tools: Option<Vec<Json>>,
    choice: Option<&Json>,
) -> Result<Option<Vec<Json>>, RequestError> {
    let tools = tools.filter(|tools| !tools.is_empty());
    for (index, tool) in tools.iter().flatten().enumerate() {
        if tool["type"] != "function" || !tool["function"]["name"].is_string() {
            let message = format!(
                "`tools[{index}]` is not {{\"type\": \"function\", \"function\": {{\"name\": ...}}}}"
            );
            return Err(RequestError::invalid(format!("tools[{index}]"), message));
        }
    }
    match choice {
        None | Some(Json::Null) => Ok(tools),
        Some(Json::String(choice)) if choice == "auto" => Ok(tools),
        Some(Json::String(choice)) if choice == "none" => Ok(None),
        Some(other) => {
            let message =
                format!("`tool_choice` {other} is not supported; use \"auto\" or \"none\"");
            Err(RequestError::unsupported("tool_choice", message))
        }
    }
}
