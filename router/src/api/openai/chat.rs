//! `POST /v1/chat/completions`.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::chunks::OpenAiReply;
use super::fields::integer::Integer;
use super::fields::{self, CommonFields};
use crate::RequestError;
use crate::api::endpoint::{Api, Ask, Reading};
use crate::callers::caller::Endpoint;
use crate::error::echo;
use crate::gateway::params::Params;
use crate::gateway::{Input, Task};
use crate::http::body;
use crate::text::ChatRender;
use messages::MessageRules;
use shape::ChatShape;

pub(crate) mod messages;
mod shape;

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

/// Answers conversations.
pub(crate) struct Chat;

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

// === impl Chat ===

impl Api for Chat {
    const PATH: &'static str = "/v1/chat/completions";
    const ABOUT: &'static str = "answers a conversation";
    const NAME: Endpoint = Endpoint("chat");

    type Reply = OpenAiReply<ChatShape>;

    fn read(
        mut object: Map<String, Json>,
        reading: &mut Reading<'_>,
    ) -> Result<Ask<Self::Reply>, RequestError> {
        fields::check_names(&object, OWN, &mut reading.ignored)?;
        let messages = object.shift_remove("messages").unwrap_or(Json::Null);
        if messages.is_null() {
            return Err(RequestError::invalid("messages", "`messages` is missing"));
        }
        let object = Json::Object(object);
        let common: CommonFields = body::fields(&object)?;
        let own: ChatFields = body::fields(&object)?;
        let (gateway, limits) = (reading.gateway, reading.gateway.limits());
        let model = gateway.models().named(common.model.as_deref())?;
        let rules = MessageRules { most: limits.messages, template: model.template.as_ref() };
        let messages = rules.check(messages, &mut reading.ignored)?;
        let usage = common.stream_usage()?;
        let salt = common.salt()?;
        let params = own.params(common.params()?)?.check(model, limits)?;
        let logprobs = params.sampling.logprobs.is_some();
        let shape = ChatShape { model: Arc::clone(model), logprobs };
        Ok(Ask {
            task: Task {
                model: Arc::clone(model),
                input: Input::Chat(Box::new(own.render(messages)?)),
                input_name: "messages",
                params: Arc::new(params),
                echo: false,
                salt,
            },
            stream: usage.is_some(),
            reply: OpenAiReply::new(shape, reading.id, model, usage),
        })
    }
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

    /// The parameters that chat names differently, or asks for differently.
    fn params(&self, common: Params) -> Result<Params, RequestError> {
        let mut params =
            Params { logprobs: self.logprobs()?, logprobs_name: "top_logprobs", ..common };
        if let Some(most) = self.max_completion_tokens {
            params.max_tokens = Some(most.get());
            params.max_tokens_name = "max_completion_tokens";
        }
        if params.max_tokens == Some(0) {
            let name = params.max_tokens_name;
            let message = format!("`{name}` is 0, less than the minimum of 1");
            return Err(RequestError::invalid(name, message));
        }
        Ok(params)
    }

    fn render(self, messages: Vec<Json>) -> Result<ChatRender, RequestError> {
        if let Some(format) = self.response_format.filter(|format| format.kind != "text") {
            let kind = echo(&format.kind);
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
            let message = format!(
                "`tool_choice` {} is not supported; use \"auto\" or \"none\"",
                echo(&other.to_string())
            );
            Err(RequestError::unsupported("tool_choice", message))
        }
    }
}
