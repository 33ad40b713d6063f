//! Generated tokens, their log probabilities and how a choice ends, in both directions.

use words::{FinishReason, PromptLogprob, SampledToken, TokenLogprob};

use super::{WireError, required};
use crate::v1;

// === impl SampledToken ===

impl From<&SampledToken> for v1::SampledToken {
    fn from(sampled: &SampledToken) -> Self {
        Self {
            choice: sampled.choice,
            index: sampled.index,
            token: sampled.token,
            logprob: sampled.logprob.as_ref().map(Into::into),
        }
    }
}

impl From<v1::SampledToken> for SampledToken {
    fn from(wire: v1::SampledToken) -> Self {
        Self {
            choice: wire.choice,
            index: wire.index,
            token: wire.token,
            logprob: wire.logprob.map(Into::into),
        }
    }
}

// === impl TokenLogprob ===

impl From<&TokenLogprob> for v1::TokenLogprob {
    fn from(logprob: &TokenLogprob) -> Self {
        let top = logprob.top.iter().map(|&(token, logprob)| v1::Alternative { token, logprob });
        Self { logprob: logprob.logprob, top: top.collect() }
    }
}

impl From<v1::TokenLogprob> for TokenLogprob {
    fn from(wire: v1::TokenLogprob) -> Self {
        let top = wire.top.into_iter().map(|entry| (entry.token, entry.logprob));
        Self { logprob: wire.logprob, top: top.collect() }
    }
}

// === impl PromptLogprob ===

impl From<&PromptLogprob> for v1::PromptLogprob {
    fn from(score: &PromptLogprob) -> Self {
        Self { index: score.index, logprob: Some((&score.logprob).into()) }
    }
}

impl TryFrom<v1::PromptLogprob> for PromptLogprob {
    type Error = WireError;

    fn try_from(wire: v1::PromptLogprob) -> Result<Self, WireError> {
        Ok(Self { index: wire.index, logprob: required("logprob", wire.logprob)?.into() })
    }
}

// === impl Finished ===

impl v1::Finished {
    /// The end of `choice`, on the wire.
    #[must_use]
    pub fn new(choice: u32, reason: FinishReason) -> Self {
        let (kind, stop_token) = match reason {
            FinishReason::Stop(token) => (v1::FinishKind::Stop, Some(token)),
            FinishReason::Length => (v1::FinishKind::Length, None),
        };
        Self { choice, kind: kind.into(), stop_token }
    }

    /// Why the choice ended.
    ///
    /// # Errors
    /// [`WireError`] for an unknown kind, or a stop without its token.
    pub fn reason(&self) -> Result<FinishReason, WireError> {
        match self.kind() {
            v1::FinishKind::Stop => {
                Ok(FinishReason::Stop(required("stop_token", self.stop_token)?))
            }
            v1::FinishKind::Length => Ok(FinishReason::Length),
            v1::FinishKind::Unspecified => Err(WireError::invalid("kind", "is unspecified")),
        }
    }
}
