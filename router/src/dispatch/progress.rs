//! What a client has received so far: every token once, in order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use kv_cache::TokenId;
use words::{FinishReason, Generation, PromptLogprob, SampledToken};

/// How far each choice of a request has come.
#[derive(Debug)]
pub struct Progress {
    /// Of one choice at most.
    tokens_max: usize,
    choices: BTreeMap<u32, Choice>,
    started: bool,
    /// Prompt tokens that the client has the scores of; the first token never has one.
    scored: usize,
    /// Those that it wants the scores of.
    scores_wanted: usize,
}

#[derive(Debug, Default)]
struct Choice {
    tokens: Vec<TokenId>,
    finished: bool,
}

/// What an arriving token is to its choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenCheck {
    /// The next one.
    Next,
    /// One that the client has already, computed again after a failure.
    Twin,
    /// Other than the one the client has at this index.
    Differs,
    /// Beyond the next one: something was lost.
    Gap,
    /// Beyond what the request asked for.
    Excess,
}

/// Something was left out before what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap;

// === impl Progress ===

impl Progress {
    /// Nothing yet of this request.
    #[must_use]
    pub fn new(generation: &Generation) -> Self {
        let tokens = generation.generated.to_vec();
        let choice = |&index: &u32| (index, Choice { tokens: tokens.clone(), finished: false });
        Self {
            tokens_max: generation.stop.max_tokens as usize,
            choices: generation.choices.iter().map(choice).collect(),
            started: false,
            scored: 1,
            scores_wanted: generation.prompt_logprobs.map_or(0, |_| generation.prompt.len()),
        }
    }

    /// Whether this is the first start; later ones are of resumed legs.
    pub(super) fn start(&mut self) -> bool {
        !std::mem::replace(&mut self.started, true)
    }

    /// Whether the client has heard that work has begun.
    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// Takes prompt scores in, and returns those that the client doesn't have yet: a long prompt's
    /// come in parts, and after a failure from the beginning.
    pub(super) fn score(&mut self, scores: Vec<PromptLogprob>) -> Result<Vec<PromptLogprob>, Gap> {
        let mut new = Vec::with_capacity(scores.len());
        for score in scores {
            match (score.index as usize).cmp(&self.scored) {
                Ordering::Less => {}
                // Beyond the prompt there is nothing to score.
                Ordering::Equal if self.scored >= self.scores_wanted => return Err(Gap),
                Ordering::Equal => {
                    self.scored += 1;
                    new.push(score);
                }
                Ordering::Greater => return Err(Gap),
            }
        }
        Ok(new)
    }

    /// Takes a token in, if it is the next one.
    pub(super) fn deliver(&mut self, token: &SampledToken) -> TokenCheck {
        let Some(choice) = self.choices.get_mut(&token.choice) else { return TokenCheck::Gap };
        let index = token.index as usize;
        match choice.tokens.get(index) {
            Some(&known) if known == token.token => TokenCheck::Twin,
            Some(_) => TokenCheck::Differs,
            None if choice.finished || index > choice.tokens.len() => TokenCheck::Gap,
            None if index >= self.tokens_max => TokenCheck::Excess,
            None => {
                choice.tokens.push(token.token);
                TokenCheck::Next
            }
        }
    }

    /// Marks a choice as ended; whether it was open. A token that ended it has come before.
    pub(super) fn finish(&mut self, choice: u32, reason: FinishReason) -> Result<bool, Gap> {
        let Some(choice) = self.choices.get_mut(&choice) else { return Ok(false) };
        match reason {
            FinishReason::Stop(token) if choice.tokens.last() != Some(&token) => Err(Gap),
            _ => Ok(!std::mem::replace(&mut choice.finished, true)),
        }
    }

    /// Those of `choices` that haven't ended.
    pub(super) fn open(&self, choices: &[u32]) -> Vec<u32> {
        let is_open = |index: &u32| self.choices.get(index).is_some_and(|choice| !choice.finished);
        choices.iter().copied().filter(is_open).collect()
    }

    /// Tokens the client has of these choices together.
    pub(super) fn delivered(&self, choices: &[u32]) -> usize {
        choices.iter().filter_map(|index| self.choices.get(index)).map(|c| c.tokens.len()).sum()
    }

    /// The work left for `choices`, or `None` if they have all ended.
    ///
    /// With several open choices, none may have a token yet: their contexts would differ.
    pub(super) fn remaining(&self, whole: &Generation, choices: &[u32]) -> Option<Generation> {
        let open = self.open(choices);
        let generated = match open[..] {
            [] => return None,
            [only] => self.choices[&only].tokens.clone(),
            _ => Vec::new(),
        };
        let prompt_logprobs = whole.prompt_logprobs.filter(|_| self.scored < whole.prompt.len());
        Some(Generation {
            choices: open,
            generated: generated.into(),
            prompt_logprobs,
            ..whole.clone()
        })
    }
}

#[cfg(test)]
mod tests;
