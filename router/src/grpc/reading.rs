//! Requests, as the wire has them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proto::v1;
use proto::v1::inference_request::Input as WireInput;
use serde_json::json;
use words::TenantSalt;

use crate::api::ignored::Ignored;
use crate::api::openai::MessageRules;
use crate::gateway::params::{Params, check_token};
use crate::gateway::{Input, Task};
use crate::served_model::ServedModel;
use crate::text::ChatRender;
use crate::{Gateway, GatewayLimits, RequestError};

/// The client's patience: the least of what it says, here or in a header, and at most what the server allows.
pub(super) fn timeout(
    wire: &v1::InferenceRequest,
    header: Option<Duration>,
    limits: &GatewayLimits,
) -> Duration {
    let asked = (wire.timeout_ms > 0).then(|| Duration::from_millis(wire.timeout_ms));
    [header, asked].into_iter().flatten().fold(limits.request_timeout, Duration::min)
}

/// Reads a request.
pub(super) fn read(wire: v1::InferenceRequest, gateway: &Gateway) -> Result<Task, RequestError> {
    let limits = gateway.limits();
    let name = Some(wire.model.as_str()).filter(|name| !name.is_empty());
    let model = Arc::clone(gateway.models().named(name)?);
    if wire.max_tokens == Some(0) {
        return Err(RequestError::invalid("max_tokens", "`max_tokens` must be at least 1"));
    }
    let params = Arc::new(params(&wire).check(&model, limits)?);
    let input = input(wire.input, &model, limits.messages)?;
    let salt = TenantSalt::default();
    Ok(Task { model, input, input_name: "input", params, echo: false, salt })
}

fn params(wire: &v1::InferenceRequest) -> Params {
    Params {
        n: Some(if wire.n == 0 { 1 } else { wire.n.into() }),
        max_tokens: wire.max_tokens.map(Into::into),
        max_tokens_name: "max_tokens",
        min_tokens: Some(wire.min_tokens.into()),
        temperature: wire.temperature.map(Into::into),
        top_p: wire.top_p.map(Into::into),
        top_k: wire.top_k.map(Into::into),
        min_p: wire.min_p.map(Into::into),
        repetition_penalty: wire.repetition_penalty.map(Into::into),
        frequency_penalty: wire.frequency_penalty.map(Into::into),
        presence_penalty: wire.presence_penalty.map(Into::into),
        logit_bias: wire.logit_bias.iter().map(|entry| (entry.token, entry.bias.into())).collect(),
        seed: wire.seed,
        logprobs: wire.logprobs.map(Into::into),
        logprobs_name: "logprobs",
        stop: wire.stop.clone(),
        stop_token_ids: wire.stop_token_ids.iter().copied().map(Into::into).collect(),
        ignore_eos: wire.ignore_eos,
        ..Params::default()
    }
}

fn input(
    wire: Option<WireInput>,
    model: &ServedModel,
    messages_max: usize,
) -> Result<Input, RequestError> {
    match wire {
        Some(WireInput::Text(text)) => Ok(Input::Texts(vec![text])),
        Some(WireInput::TokenIds(tokens)) => {
            let check = |&id: &u32| check_token("token_ids", id.into(), model);
            tokens
                .ids
                .iter()
                .map(check)
                .collect::<Result<_, _>>()
                .map(|ids| Input::Tokens(vec![ids]))
        }
        Some(WireInput::Chat(chat)) => {
            let message = |message: v1::ChatMessage| json!({"role": message.role, "content": message.content});
            let messages = chat.messages.into_iter().map(message).collect();
            let rules = MessageRules { most: messages_max, template: None };
            let messages = rules.check(messages, &mut Ignored::default())?;
            let render = ChatRender { messages, now: SystemTime::now(), ..ChatRender::default() };
            Ok(Input::Chat(Box::new(render)))
        }
        None => Err(RequestError::invalid("input", "one of text, token_ids and chat is needed")),
    }
}
