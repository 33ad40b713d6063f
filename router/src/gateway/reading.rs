//! A request's text becomes tokens.

use std::sync::Arc;

use kv_cache::TokenId;

use super::request::{Input, Prompt, Task, TextRequest};
use crate::RequestError;
use crate::served_model::ServedModel;
use crate::text::{Detokenizer, Effort, TemplateError, TokenizerError};

/// A rendered conversation, of a model with which nothing bounds the text of its context.
const RENDERED_BYTES_MAX: usize = 64 << 20;

/// Turns a request's text into tokens, as far as they are wanted. Slow: for the text threads.
pub(super) fn read(
    mut request: TextRequest,
    effort: &Effort,
) -> Result<(TextRequest, Vec<Prompt>), RequestError> {
    let task = &mut request.task;
    let (model, param) = (Arc::clone(&task.model), task.input_name);
    let context = model.context_tokens_max as usize;
    let too_long = || {
        let most = effort.tokens_max;
        let problem = format!("of {most} tokens: the prompt has more; shorten it");
        RequestError::context_length(param, context, &problem)
    };
    let wrong = |error| match error {
        TokenizerError::TooLong(_) => too_long(),
        other => unread(&other, param),
    };
    let input = std::mem::replace(&mut task.input, Input::Texts(Vec::new()));
    let prompts = match input {
        Input::Chat(mut chat) => {
            let template = model.template.as_ref().ok_or_else(|| no_template(&model))?;
            let tokenizer = &model.tokenizer;
            let bytes_max = tokenizer.text_bytes_max(effort.tokens_max);
            let bytes_max = bytes_max.unwrap_or(usize::MAX).min(RENDERED_BYTES_MAX);
            // The template has printed the special tokens itself.
            let salt = &task.salt.0;
            let text = |chat, bytes_max| {
                let text = template.render_within(chat, bytes_max, &effort.cancelled);
                text.map_err(|error| match error {
                    TemplateError::TooLong(_) => too_long(),
                    other => other.into(),
                })
            };
            let tokens = match &model.control_tokens {
                None => tokenizer.encode_chat(&text(*chat, bytes_max)?, salt, effort),
                Some(control) => {
                    control.mark(&mut chat);
                    // Marks make it longer than its tokens.
                    control.encode(&text(*chat, RENDERED_BYTES_MAX)?, salt, effort)
                }
            };
            let tokens = tokens.map_err(wrong)?;
            vec![Prompt { tokens: tokens.into(), echo: None }]
        }
        Input::Texts(texts) => texts
            .into_iter()
            .map(|text| {
                let tokens = model.tokenizer.encode_prompt(&text, effort).map_err(wrong)?.into();
                Ok(Prompt { tokens, echo: task.echo.then_some(text) })
            })
            .collect::<Result<_, RequestError>>()?,
        Input::Tokens(prompts) => prompts
            .into_iter()
            .map(|tokens| {
                let fits = tokens.len() <= effort.tokens_max;
                let echo = (task.echo && fits).then(|| text_of(&tokens, task));
                Prompt { tokens: tokens.into(), echo }
            })
            .collect(),
    };
    Ok((request, prompts))
}

/// Why a prompt did not become tokens.
fn unread(error: &TokenizerError, param: &'static str) -> RequestError {
    match error {
        TokenizerError::TooLong(_) | TokenizerError::Unbroken { .. } => {
            RequestError::invalid(param, error.to_string())
        }
        TokenizerError::Cancelled => RequestError::stopping(),
        TokenizerError::Load { .. } | TokenizerError::Folder(_) | TokenizerError::Encode(_) => {
            RequestError::Internal(error.to_string())
        }
    }
}

/// The text of a prompt that was given as tokens.
fn text_of(tokens: &[TokenId], task: &Task) -> String {
    let tokenizer = Arc::clone(&task.model.tokenizer);
    let mut reader = Detokenizer::new(tokenizer, &[], task.params.skip_special_tokens);
    let mut text = String::new();
    tokens.iter().for_each(|&token| reader.push(token, &mut text));
    reader.finish(&mut text);
    text
}

fn no_template(model: &ServedModel) -> RequestError {
    let name = &model.name;
    let message = format!("`{name}` has no chat template: use /v1/completions, or another model");
    RequestError::unsupported("messages", message)
}
