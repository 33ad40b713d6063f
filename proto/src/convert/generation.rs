//! [`v1::Generation`] and its parts, in both directions.

use std::time::Duration;

use words::{ClientId, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt};

use super::{WireError, finite, in_range, non_empty, required};
use crate::seal::Sealed as _;
use crate::v1;

/// The most choices one generation may ask for: a limit of the wire, above the gateway's own.
pub const CHOICES_MAX: usize = 256;
/// A generation's seal follows nothing.
const GENERATION_KEY: u64 = 0;
/// The most biased tokens, as in OpenAI's API (which allows 300).
const LOGIT_BIAS_MAX: usize = 1024;
/// The most tokens that end a sequence beside the model's own: four times as many as the gateway lets in. Each
/// new token is compared with all of them.
const STOP_TOKENS_MAX: usize = 1024;
/// The most alternatives per token that are worth sending.
const LOGPROBS_MAX: u32 = 128;

// === impl Generation ===

impl From<&Generation> for v1::Generation {
    /// Sealed, which is the router's to do, and a worker's that goes on with tokens of its own.
    fn from(generation: &Generation) -> Self {
        Self::under_seal(generation, 0).sealed(GENERATION_KEY)
    }
}

impl v1::Generation {
    /// The generation as it came, for the next receiver: under the `seal` that it came with.
    #[must_use]
    pub fn under_seal(generation: &Generation, seal: u64) -> Self {
        Self {
            request_id: generation.id.to_string(),
            prompt: generation.prompt.to_vec(),
            generated: generation.generated.to_vec(),
            choices: generation.choices.clone(),
            sampling: Some((&generation.sampling).into()),
            stop: Some((&generation.stop).into()),
            prompt_logprobs: generation.prompt_logprobs,
            tenant_salt: generation.salt.0.to_vec(),
            client: generation.client.0,
            // What promises nothing says nothing, as it always did.
            targets: Some(&generation.targets)
                .filter(|it| **it != Targets::default())
                .map(Into::into),
            seal,
        }
    }
}

impl TryFrom<v1::Generation> for Generation {
    type Error = WireError;

    fn try_from(mut wire: v1::Generation) -> Result<Self, WireError> {
        wire.check_seal(GENERATION_KEY)?;
        if wire.prompt.is_empty() {
            return Err(WireError::invalid("prompt", "is empty"));
        }
        if wire.choices.is_empty() || wire.choices.len() > CHOICES_MAX {
            return Err(WireError::invalid("choices", format!("want 1 to {CHOICES_MAX}")));
        }
        if !wire.generated.is_empty() && wire.choices.len() != 1 {
            return Err(WireError::invalid("generated", "goes with exactly one choice"));
        }
        Ok(Self {
            id: RequestId(non_empty("request_id", &wire.request_id)?.into()),
            prompt: wire.prompt.into(),
            generated: wire.generated.into(),
            choices: wire.choices,
            sampling: required("sampling", wire.sampling)?.try_into()?,
            stop: required("stop", wire.stop)?.try_into()?,
            prompt_logprobs: wire
                .prompt_logprobs
                .map(|top| in_range("prompt_logprobs", top, 0..=LOGPROBS_MAX))
                .transpose()?,
            salt: TenantSalt(wire.tenant_salt.into()),
            client: ClientId(wire.client),
            targets: wire.targets.map(Into::into).unwrap_or_default(),
        })
    }
}

// === impl Targets ===

impl From<&Targets> for v1::Targets {
    fn from(targets: &Targets) -> Self {
        let us = |target: Option<Duration>| {
            target.map_or(0, |target| u64::try_from(target.as_micros()).unwrap_or(u64::MAX).max(1))
        };
        Self { ttft_us: us(targets.ttft), tpot_us: us(targets.tpot), itl_us: us(targets.itl) }
    }
}

impl From<v1::Targets> for Targets {
    fn from(wire: v1::Targets) -> Self {
        let target = |us| (us > 0).then(|| Duration::from_micros(us));
        Self { ttft: target(wire.ttft_us), tpot: target(wire.tpot_us), itl: target(wire.itl_us) }
    }
}

// === impl Sampling ===

impl From<&Sampling> for v1::Sampling {
    fn from(sampling: &Sampling) -> Self {
        Self {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            logit_bias: sampling
                .logit_bias
                .iter()
                .map(|&(token, bias)| v1::LogitBias { token, bias })
                .collect(),
            seed: sampling.seed,
            logprobs: sampling.logprobs,
        }
    }
}

impl TryFrom<v1::Sampling> for Sampling {
    type Error = WireError;

    fn try_from(wire: v1::Sampling) -> Result<Self, WireError> {
        if wire.logit_bias.len() > LOGIT_BIAS_MAX {
            return Err(WireError::invalid("logit_bias", format!("over {LOGIT_BIAS_MAX} entries")));
        }
        let logit_bias = wire
            .logit_bias
            .into_iter()
            .map(|entry| Ok((entry.token, finite("logit_bias", entry.bias)?)))
            .collect::<Result<_, WireError>>()?;
        Ok(Self {
            temperature: in_range("temperature", wire.temperature, 0.0..=f32::MAX)?,
            top_k: wire.top_k,
            top_p: in_range("top_p", wire.top_p, 0.0..=1.0)?,
            min_p: in_range("min_p", wire.min_p, 0.0..=1.0)?,
            repetition_penalty: in_range(
                "repetition_penalty",
                wire.repetition_penalty,
                f32::MIN_POSITIVE..=f32::MAX,
            )?,
            frequency_penalty: finite("frequency_penalty", wire.frequency_penalty)?,
            presence_penalty: finite("presence_penalty", wire.presence_penalty)?,
            logit_bias,
            seed: wire.seed,
            logprobs: wire
                .logprobs
                .map(|top| in_range("logprobs", top, 0..=LOGPROBS_MAX))
                .transpose()?,
        })
    }
}

// === impl StopRules ===

impl From<&StopRules> for v1::StopRules {
    fn from(stop: &StopRules) -> Self {
        Self {
            max_tokens: stop.max_tokens,
            min_tokens: stop.min_tokens,
            stop_token_ids: stop.stop_token_ids.clone(),
            ignore_eos: stop.ignore_eos,
        }
    }
}

impl TryFrom<v1::StopRules> for StopRules {
    type Error = WireError;

    fn try_from(wire: v1::StopRules) -> Result<Self, WireError> {
        if wire.stop_token_ids.len() > STOP_TOKENS_MAX {
            let problem = format!("over {STOP_TOKENS_MAX} tokens");
            return Err(WireError::invalid("stop_token_ids", problem));
        }
        Ok(Self {
            max_tokens: wire.max_tokens,
            min_tokens: wire.min_tokens,
            stop_token_ids: wire.stop_token_ids,
            ignore_eos: wire.ignore_eos,
        })
    }
}
