//! The prompts of a completion.

use std::fmt;

use kv_cache::TokenId;
use serde_json::Value as Json;

use super::super::fields::integer::Integer;
use crate::gateway::Input;
use crate::gateway::params::check_token;
use crate::http::body;
use crate::served_model::ServedModel;
use crate::{GatewayLimits, RequestError};

/// The four forms of a prompt: a text, texts, token ids, lists of token ids.
pub(super) fn read(
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

pub(super) fn check_choices(
    input: &Input,
    n: u32,
    limits: &GatewayLimits,
) -> Result<(), RequestError> {
    let prompts = input.prompts();
    if prompts * n as usize <= limits.choices as usize {
        return Ok(());
    }
    let message =
        format!("{prompts} prompts with `n` {n} are more than {} choices", limits.choices);
    Err(RequestError::invalid("n", message))
}
