//! Which top-level fields are read, which may be ignored, and which are refused.
//!
//! A field that would change the answer is never dropped silently: known ones that aren't served
//! are refused by name, unknown ones are named in a header of the answer, or refused as OpenAI refuses
//! them where that is asked for. Harmless ones that clients send out of habit are let through.

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use self::integer::Integer;
use crate::RequestError;
use crate::api::ignored::Ignored;
use crate::error::echo;
use crate::gateway::params::Params;

pub(super) mod integer;

/// Fields that both endpoints read.
const COMMON: &[&str] = &[
    "cache_salt",
    "frequency_penalty",
    "ignore_eos",
    "include_stop_str_in_output",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "min_p",
    "min_tokens",
    "model",
    "n",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "stream",
    "stream_options",
    "temperature",
    "top_k",
    "top_p",
];

/// Fields that say nothing about the answer: ignored.
const HARMLESS: &[&str] = &[
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "priority",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "service_tier",
    "spaces_between_special_tokens",
    "store",
    "user",
];

/// Fields of OpenAI's API, or of well-known servers, that would change the answer.
const UNSUPPORTED: &[&str] = &[
    "add_special_tokens",
    "allowed_token_ids",
    "audio",
    "bad_words",
    "best_of",
    "chat_template",
    "function_call",
    "functions",
    "guided_choice",
    "guided_decoding_backend",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "guided_whitespace_pattern",
    "length_penalty",
    "logits_processors",
    "lora",
    "mm_processor_kwargs",
    "modalities",
    "prompt_logprobs",
    "structured_outputs",
    "suffix",
    "truncate_prompt_tokens",
    "use_beam_search",
    "verbosity",
    "web_search_options",
];

/// The fields of `stream_options`. `include_obfuscation` is padding against eavesdroppers, harmless
/// to leave out.
const STREAM_OPTIONS: &[&str] = &["continuous_usage_stats", "include_obfuscation", "include_usage"];

/// What both endpoints say about sampling and streaming.
#[derive(Debug, Deserialize)]
pub(super) struct CommonFields {
    pub(super) model: Option<String>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    cache_salt: Option<String>,
    n: Option<Integer>,
    max_tokens: Option<Integer>,
    min_tokens: Option<Integer>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<Integer>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    logit_bias: Option<IndexMap<String, f64>>,
    seed: Option<Integer>,
    stop: Option<Json>,
    stop_token_ids: Option<Vec<Integer>>,
    ignore_eos: Option<bool>,
    include_stop_str_in_output: Option<bool>,
    skip_special_tokens: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

/// Where a stream tells of the tokens used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamUsage {
    /// In a chunk of its own, at the end.
    pub(super) last: bool,
    /// In every chunk, so far.
    pub(super) running: bool,
}

/// Notes fields that are not in `own`, not common and not harmless.
///
/// # Errors
/// [`RequestError::Invalid`] for one that would change the answer and isn't served, or that `ignored`
/// doesn't let through.
pub(super) fn check_names(
    object: &Map<String, Json>,
    own: &[&str],
    ignored: &mut Ignored,
) -> Result<(), RequestError> {
    let unserved = object.iter().find(|(name, value)| {
        UNSUPPORTED.contains(&name.as_str()) && !is_neutral(name, value, object)
    });
    if let Some((name, _)) = unserved {
        let message = format!("`{name}` is not supported here; leave it out");
        return Err(RequestError::unsupported(name, message));
    }
    let lists = [own, COMMON, HARMLESS, UNSUPPORTED];
    ignored.note_all_but("", object, |name| lists.iter().any(|list| list.contains(&name)))?;
    match object.get("stream_options") {
        Some(Json::Object(options)) => {
            ignored.note_all_but("stream_options", options, |name| STREAM_OPTIONS.contains(&name))
        }
        _ => Ok(()),
    }
}

/// Whether the field, as sent, asks for nothing.
fn is_neutral(name: &str, value: &Json, object: &Map<String, Json>) -> bool {
    match (name, value) {
        (_, Json::Null | Json::Bool(false)) => name != "add_special_tokens" || value.is_null(),
        ("add_special_tokens", Json::Bool(true)) => true,
        (_, Json::String(text)) => {
            text.is_empty() || (name, text.as_str()) == ("verbosity", "medium")
        }
        ("modalities", Json::Array(modes)) => modes.iter().all(|mode| mode == "text"),
        (_, Json::Array(items)) => items.is_empty(),
        (_, Json::Object(fields)) => fields.is_empty(),
        ("length_penalty", Json::Number(number)) => number.as_f64() == Some(1.0),
        ("best_of", Json::Number(best)) => {
            best.as_u64() == object.get("n").map_or(Some(1), Json::as_u64)
        }
        _ => false,
    }
}

// === impl CommonFields ===

impl CommonFields {
    /// Where a stream is to tell of the tokens used; `None`: the answer is to be whole.
    pub(super) fn stream_usage(&self) -> Result<Option<StreamUsage>, RequestError> {
        match (&self.stream_options, self.stream == Some(true)) {
            (None, true) => Ok(Some(StreamUsage::default())),
            (None, false) => Ok(None),
            (Some(options), true) => Ok(Some(StreamUsage {
                last: options.include_usage == Some(true),
                running: options.continuous_usage_stats == Some(true),
            })),
            (Some(_), false) => {
                let message = "`stream_options` goes with `stream: true` only";
                Err(RequestError::invalid("stream_options", message))
            }
        }
    }

    /// Separates the prefix caches of clients that send different salts.
    pub(super) fn salt(&self) -> Result<words::TenantSalt, RequestError> {
        match self.cache_salt.as_deref() {
            Some("") => Err(RequestError::invalid("cache_salt", "`cache_salt` can't be empty")),
            Some(salt) => Ok(words::TenantSalt(salt.as_bytes().into())),
            None => Ok(words::TenantSalt::default()),
        }
    }

    /// The parameters, those that the endpoints name differently left for them to fill in.
    pub(super) fn params(self) -> Result<Params, RequestError> {
        let stop_token_ids = self.stop_token_ids.unwrap_or_default();
        Ok(Params {
            n: self.n.map(Integer::get),
            max_tokens: self.max_tokens.map(Integer::get),
            max_tokens_name: "max_tokens",
            min_tokens: self.min_tokens.map(Integer::get),
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k.map(Integer::get),
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            logit_bias: logit_bias(self.logit_bias.unwrap_or_default())?,
            seed: self.seed.map(seed).transpose()?,
            logprobs_name: "logprobs",
            stop: stop(self.stop)?,
            stop_token_ids: stop_token_ids.into_iter().map(Integer::get).collect(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
            include_stop: self.include_stop_str_in_output.unwrap_or(false),
            keep_special_tokens: self.skip_special_tokens == Some(false),
            ..Params::default()
        })
    }
}

fn stop(stop: Option<Json>) -> Result<Vec<String>, RequestError> {
    let wrong = || RequestError::invalid("stop", "`stop` must be a string or a list of strings");
    match stop {
        None => Ok(Vec::new()),
        Some(Json::String(one)) => Ok(vec![one]),
        Some(Json::Array(many)) => many
            .into_iter()
            .map(|one| if let Json::String(one) = one { Ok(one) } else { Err(wrong()) })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// Token ids are written as strings, JSON's only keys.
fn logit_bias(bias: IndexMap<String, f64>) -> Result<Vec<(u32, f64)>, RequestError> {
    let token = |(token, bias): (String, f64)| match token.parse::<u32>() {
        Ok(id) => Ok((id, bias)),
        Err(_) => {
            let token = echo(&token);
            let message = format!("`logit_bias` has the key `{token}`, which is no token id");
            Err(RequestError::invalid("logit_bias", message))
        }
    };
    bias.into_iter().map(token).collect()
}

/// Any 64-bit number, signed or not.
fn seed(seed: Integer) -> Result<u64, RequestError> {
    let seed = seed.wide();
    u64::try_from(seed)
        .or_else(|_| i64::try_from(seed).map(i64::cast_unsigned))
        .map_err(|_| RequestError::invalid("seed", "`seed` does not fit 64 bits"))
}
