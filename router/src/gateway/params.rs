//! What a client may say about sampling and stopping, checked once for HTTP and gRPC.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use kv_cache::TokenId;
use uuid::Uuid;
use words::{Sampling, StopRules};

use crate::callers::limits::LOGPROBS_MAX;
use crate::served_model::ServedModel;
use crate::text::StopSet;
use crate::{GatewayLimits, RequestError};

/// The most biased tokens, well above OpenAI's 300 and within what the wire allows.
const LOGIT_BIAS_MAX: usize = 1024;

/// A request's parameters as the client gave them; absent ones take the model's defaults
/// (`generation_config.json`), then OpenAI's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    /// Choices per prompt; absent: 1.
    pub n: Option<i64>,
    /// Tokens per choice; absent: what `max_tokens_default` says.
    pub max_tokens: Option<i64>,
    /// What [`Params::max_tokens`] is called in this request, for error messages.
    pub max_tokens_name: &'static str,
    /// For an absent `max_tokens`; `None`: as many as the context allows.
    pub max_tokens_default: Option<u32>,
    /// No end before this many tokens.
    pub min_tokens: Option<i64>,
    /// 0 to 2; 0 is greedy.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// -1 and 0 keep all.
    pub top_k: Option<i64>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// Above 0.
    pub repetition_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -100 to 100 each.
    pub logit_bias: Vec<(TokenId, f64)>,
    /// Absent: random.
    pub seed: Option<u64>,
    /// Alternatives per token; absent: no log probabilities.
    pub logprobs: Option<i64>,
    /// What [`Params::logprobs`] is called in this request, for error messages.
    pub logprobs_name: &'static str,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// Tokens that end the sequence.
    pub stop_token_ids: Vec<i64>,
    /// Go on past the model's end-of-sequence tokens.
    pub ignore_eos: bool,
    /// Leave the stop string (or stop token) in the text.
    pub include_stop: bool,
    /// Leave special tokens in the text.
    pub keep_special_tokens: bool,
}

/// Parameters that make sense for a model, all defaults filled in; prompt lengths not yet known.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedParams {
    /// Choices per prompt.
    pub n: u32,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// When to stop; `max_tokens` is 0 until [`CheckedParams::stop_rules`] knows the prompt.
    stop: StopRules,
    max_tokens: Option<u32>,
    max_tokens_name: &'static str,
    /// Strings that end the text.
    pub stop_strings: Arc<StopSet>,
    /// Leave what ended the text in the text.
    pub include_stop: bool,
    /// Special tokens are no text.
    pub skip_special_tokens: bool,
}

// === impl Params ===

impl Params {
    /// Checks every value against its range, the model and the limits, and fills in defaults.
    ///
    /// # Errors
    /// [`RequestError::Invalid`] naming the first field that is wrong.
    pub fn check(
        self,
        model: &ServedModel,
        limits: &GatewayLimits,
    ) -> Result<CheckedParams, RequestError> {
        let n = integer("n", self.n.unwrap_or(1), 1..=limits.choices.into())?;
        let max_tokens = self
            .max_tokens
            .map(|most| integer(self.max_tokens_name, most, 0..=u32::MAX.into()))
            .transpose()?
            .or(self.max_tokens_default);
        let min_tokens = integer("min_tokens", self.min_tokens.unwrap_or(0), 0..=u32::MAX.into())?;
        if max_tokens.is_some_and(|most| min_tokens > most) {
            let message = format!("`min_tokens` is {min_tokens}, more than `max_tokens`");
            return Err(RequestError::invalid("min_tokens", message));
        }
        let stop = StopRules {
            max_tokens: 0,
            min_tokens,
            stop_token_ids: self.stop_token_ids(model, limits)?,
            ignore_eos: self.ignore_eos,
        };
        check_stops(&self.stop, limits)?;
        Ok(CheckedParams {
            n,
            sampling: self.sampling(model, limits)?,
            stop,
            max_tokens,
            max_tokens_name: self.max_tokens_name,
            stop_strings: Arc::new(StopSet::new(self.stop)),
            include_stop: self.include_stop,
            skip_special_tokens: !self.keep_special_tokens,
        })
    }

    fn sampling(
        &self,
        model: &ServedModel,
        limits: &GatewayLimits,
    ) -> Result<Sampling, RequestError> {
        let defaults = &model.sampling_defaults;
        let number = |name, value: Option<f64>, range, default| {
            value.map_or(Ok(default), |value| real(name, value, range))
        };
        let top_k = match self.top_k {
            Some(-1) => 0,
            Some(top_k) => integer("top_k", top_k, 0..=u32::MAX.into())?,
            None => defaults.top_k,
        };
        let positive = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
        let top_logprobs = limits.top_logprobs.min(LOGPROBS_MAX);
        Ok(Sampling {
            temperature: number("temperature", self.temperature, 0.0..=2.0, defaults.temperature)?,
            top_k,
            top_p: number("top_p", self.top_p, 0.0..=1.0, defaults.top_p)?,
            min_p: number("min_p", self.min_p, 0.0..=1.0, defaults.min_p)?,
            repetition_penalty: number(
                "repetition_penalty",
                self.repetition_penalty,
                positive,
                defaults.repetition_penalty,
            )?,
            frequency_penalty: number(
                "frequency_penalty",
                self.frequency_penalty,
                -2.0..=2.0,
                0.0,
            )?,
            presence_penalty: number("presence_penalty", self.presence_penalty, -2.0..=2.0, 0.0)?,
            logit_bias: self.logit_bias(model)?,
            seed: self.seed.unwrap_or_else(random_seed),
            logprobs: self
                .logprobs
                .map(|top| integer(self.logprobs_name, top, 0..=top_logprobs.into()))
                .transpose()?,
        })
    }

    fn logit_bias(&self, model: &ServedModel) -> Result<Vec<(TokenId, f32)>, RequestError> {
        if self.logit_bias.len() > LOGIT_BIAS_MAX {
            let message = format!("`logit_bias` has more than {LOGIT_BIAS_MAX} tokens");
            return Err(RequestError::invalid("logit_bias", message));
        }
        let checked = self.logit_bias.iter().map(|&(token, bias)| {
            check_token("logit_bias", token.into(), model)?;
            Ok((token, real("logit_bias", bias, -100.0..=100.0)?))
        });
        checked.collect()
    }

    fn stop_token_ids(
        &self,
        model: &ServedModel,
        limits: &GatewayLimits,
    ) -> Result<Vec<TokenId>, RequestError> {
        if self.stop_token_ids.len() > limits.stops {
            let message = format!("at most {} stop tokens are allowed", limits.stops);
            return Err(RequestError::invalid("stop_token_ids", message));
        }
        let check = |&token: &i64| check_token("stop_token_ids", token, model);
        self.stop_token_ids.iter().map(check).collect()
    }
}

// === impl CheckedParams ===

impl CheckedParams {
    /// Whether the client wants no tokens at all, only its prompt back.
    #[must_use]
    pub fn wants_nothing(&self) -> bool {
        self.max_tokens == Some(0)
    }

    /// Tokens that end the sequence, the model's own not included.
    #[must_use]
    pub fn stop_token_ids(&self) -> &[TokenId] {
        &self.stop.stop_token_ids
    }

    /// Tokens before which nothing may end the text.
    #[must_use]
    pub fn min_tokens(&self) -> u32 {
        self.stop.min_tokens
    }

    /// The stop rules for a prompt of this length.
    ///
    /// # Errors
    /// [`RequestError::ContextLength`] if prompt and answer don't fit the context.
    pub fn stop_rules(
        &self,
        prompt_tokens: usize,
        context_tokens_max: u32,
        prompt_param: &'static str,
    ) -> Result<StopRules, RequestError> {
        let context = context_tokens_max as usize;
        let room = context.saturating_sub(prompt_tokens);
        // Without an upper limit the context is one, and the lower may be beyond it.
        let (name, wanted) = match self.max_tokens {
            Some(most) => (self.max_tokens_name, most),
            None => ("min_tokens", self.stop.min_tokens),
        };
        let wanted = wanted.max(1) as usize;
        if room == 0 {
            let problem = format!(
                "of {} tokens: the prompt has {prompt_tokens}, which leaves no room for an answer; shorten it",
                context.saturating_sub(1)
            );
            return Err(RequestError::context_length(prompt_param, context, &problem));
        }
        if wanted > room {
            let problem = too_many(name, wanted, prompt_tokens, context);
            return Err(RequestError::context_length(name, context, &problem));
        }
        let most = self.max_tokens.map_or(room, |most| most.max(1) as usize);
        let max_tokens = u32::try_from(most).unwrap_or(u32::MAX);
        Ok(StopRules { max_tokens, ..self.stop.clone() })
    }
}

/// What to change where a prompt and the `wanted` tokens of `name` are too long together.
fn too_many(name: &str, wanted: usize, prompt_tokens: usize, context: usize) -> String {
    let room = context - prompt_tokens;
    match context.saturating_sub(wanted) {
        // No prompt is short enough.
        0 => format!(
            "that `{name}` leaves: it is {wanted}; with this prompt of {prompt_tokens} give at most {room}, \
             or leave it out"
        ),
        input_most => format!(
            "of {input_most} tokens: the prompt has {prompt_tokens}, and with the {wanted} of `{name}` that \
             makes {}; shorten it, or give at most {room}",
            prompt_tokens + wanted
        ),
    }
}

/// The token id in range of the model's vocabulary.
///
/// # Errors
/// [`RequestError::Invalid`] naming `param` if it isn't.
pub fn check_token(
    param: impl fmt::Display,
    token: i64,
    model: &ServedModel,
) -> Result<TokenId, RequestError> {
    let highest = model.vocab_tokens.saturating_sub(1);
    u32::try_from(token).ok().filter(|id| *id <= highest).ok_or_else(|| {
        let message = format!("token id {token} is outside of this model's 0 to {highest}");
        RequestError::invalid(param.to_string(), message)
    })
}

fn check_stops(stops: &[String], limits: &GatewayLimits) -> Result<(), RequestError> {
    if stops.len() > limits.stops {
        let message = format!("{} stop strings given, at most {}", stops.len(), limits.stops);
        return Err(RequestError::invalid("stop", message));
    }
    if stops.iter().any(String::is_empty) {
        return Err(RequestError::invalid("stop", "a stop string can't be empty"));
    }
    if stops.iter().any(|stop| stop.len() > limits.stop_bytes) {
        let message = format!("a stop string has over {} bytes", limits.stop_bytes);
        return Err(RequestError::invalid("stop", message));
    }
    if stops.iter().map(String::len).sum::<usize>() > limits.stops_bytes {
        let message = format!("the stop strings have over {} bytes together", limits.stops_bytes);
        return Err(RequestError::invalid("stop", message));
    }
    Ok(())
}

fn integer(name: &str, value: i64, range: RangeInclusive<i64>) -> Result<u32, RequestError> {
    let checked = Some(value).filter(|value| range.contains(value));
    checked.and_then(|value| u32::try_from(value).ok()).ok_or_else(|| {
        let problem = if value < *range.start() {
            format!("less than the minimum of {}", range.start())
        } else {
            format!("greater than the maximum of {}", range.end())
        };
        RequestError::invalid(name, format!("`{name}` is {value}, {problem}"))
    })
}

fn real(name: &str, value: f64, range: RangeInclusive<f64>) -> Result<f32, RequestError> {
    if range.contains(&value) {
        return Ok(value as f32);
    }
    let (value, start, end) = (written(value), range.start(), range.end());
    let message = if *start == f64::from(f32::MIN_POSITIVE) {
        format!("`{name}` is {value}, but must be above 0")
    } else {
        format!("`{name}` is {value}, outside of {start} to {end}")
    };
    Err(RequestError::invalid(name, message))
}

/// A number as its client may have written it: Rust would write the largest with 309 digits.
fn written(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-16..1e16).contains(&size) {
        value.to_string()
    } else {
        format!("{value:e}")
    }
}

/// A seed that nobody can guess, from the operating system's randomness.
fn random_seed() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // A v4 UUID has six fixed bits, at different places of the two halves.
    high.rotate_left(32) ^ low
}
