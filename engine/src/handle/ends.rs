//! Where a request's sequences end.

use kv_cache::TokenId;
use smallvec::SmallVec;
use words::{FinishReason, Generation};

use super::EngineInfo;

/// Where the sequences of one request end, whoever generated their tokens.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// Tokens that end a sequence: a model's few, in place.
    stops: SmallVec<[TokenId; 4]>,
    min_tokens: usize,
    max_tokens: usize,
    /// Tokens that the context has room for behind the prompt.
    room_tokens: usize,
}

// === impl Ends ===

impl Ends {
    pub(crate) fn new(work: &Generation, info: &EngineInfo) -> Self {
        let eos: &[TokenId] = if work.stop.ignore_eos { &[] } else { &info.eos_token_ids };
        Self {
            stops: eos.iter().chain(&work.stop.stop_token_ids).copied().collect(),
            min_tokens: work.stop.min_tokens as usize,
            max_tokens: work.stop.max_tokens as usize,
            room_tokens: (info.context_tokens_max as usize).saturating_sub(work.prompt.len()),
        }
    }

    /// Whether another token is wanted after `count`, as long as nothing ended the sequence.
    pub(crate) fn wants_token(&self, count: usize) -> bool {
        count < self.max_tokens
    }

    /// Tokens that may not come next.
    ///
    /// - `count`: tokens generated so far.
    pub(crate) fn banned(&self, count: usize) -> &[TokenId] {
        if count < self.min_tokens { &self.stops } else { &[] }
    }

    /// Whether a sequence of `count` tokens has ended, whichever they are.
    pub(crate) fn is_full(&self, count: usize) -> bool {
        count >= self.room_tokens || !self.wants_token(count)
    }

    /// Why a sequence whose `count` tokens end with `last` has ended, if it has.
    pub(crate) fn reason(&self, last: TokenId, count: usize) -> Option<FinishReason> {
        if count > self.min_tokens && self.stops.contains(&last) {
            return Some(FinishReason::Stop(last));
        }
        self.is_full(count).then_some(FinishReason::Length)
    }

    /// Why a sequence of these tokens has ended, if it has; one without any has not even begun.
    pub(crate) fn reason_after(&self, output: &[TokenId]) -> Option<FinishReason> {
        output.last().and_then(|&last| self.reason(last, output.len()))
    }
}
