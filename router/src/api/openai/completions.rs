//! `POST /v1/completions`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::chunks::OpenAiReply;
use super::fields::integer::Integer;
use super::fields::{self, CommonFields};
use crate::RequestError;
use crate::api::endpoint::{Api, Ask, Reading};
use crate::callers::caller::Endpoint;
use crate::gateway::Task;
use crate::gateway::params::Params;
use crate::http::body;
use shape::CompletionShape;

mod prompt;
mod shape;

/// What only this endpoint reads.
const OWN: &[&str] = &["echo", "prompt"];
/// OpenAI's default.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Continues texts.
pub(crate) struct Completions;

#[derive(Deserialize)]
struct CompletionFields {
    echo: Option<bool>,
    logprobs: Option<Integer>,
}

// === impl Completions ===

impl Api for Completions {
    const PATH: &'static str = "/v1/completions";
    const ABOUT: &'static str = "continues a text";
    const NAME: Endpoint = Endpoint("completions");

    type Reply = OpenAiReply<CompletionShape>;

    fn read(
        mut object: Map<String, Json>,
        reading: &mut Reading<'_>,
    ) -> Result<Ask<Self::Reply>, RequestError> {
        check_suffix(&object)?;
        fields::check_names(&object, OWN, &mut reading.ignored)?;
        let prompt = object.shift_remove("prompt").unwrap_or(Json::Null);
        let object = Json::Object(object);
        let common: CommonFields = body::fields(&object)?;
        let own: CompletionFields = body::fields(&object)?;
        let (gateway, limits) = (reading.gateway, reading.gateway.limits());
        let model = gateway.models().named(common.model.as_deref())?;
        let input = prompt::read(prompt, model, limits)?;
        let usage = common.stream_usage()?;
        let salt = common.salt()?;
        let params = own.params(common.params()?)?.check(model, limits)?;
        prompt::check_choices(&input, params.n, limits)?;
        let logprobs = params.sampling.logprobs.is_some();
        let shape = CompletionShape { model: Arc::clone(model), logprobs };
        Ok(Ask {
            task: Task {
                model: Arc::clone(model),
                input,
                input_name: "prompt",
                params: Arc::new(params),
                echo: own.echo(),
                salt,
            },
            stream: usage.is_some(),
            reply: OpenAiReply::new(shape, reading.id, model, usage),
        })
    }
}

fn check_suffix(object: &Map<String, Json>) -> Result<(), RequestError> {
    if object.get("suffix").and_then(Json::as_str).is_none_or(str::is_empty) {
        return Ok(());
    }
    let message = "`suffix` is not supported: this model writes forwards only";
    Err(RequestError::unsupported("suffix", message))
}

// === impl CompletionFields ===

impl CompletionFields {
    fn echo(&self) -> bool {
        self.echo.unwrap_or(false)
    }

    /// The parameters that completions have other defaults for.
    fn params(&self, common: Params) -> Result<Params, RequestError> {
        if common.max_tokens == Some(0) && !self.echo() {
            let message = "`max_tokens` can be 0 only with `echo`: there would be no answer";
            return Err(RequestError::invalid("max_tokens", message));
        }
        let logprobs = self.logprobs.map(Integer::get);
        Ok(Params { logprobs, max_tokens_default: Some(MAX_TOKENS_DEFAULT), ..common })
    }
}
