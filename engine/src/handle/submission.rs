//! What a worker asks of the engine, and why it may be refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::BlockTable;
use words::{Generation, SampledToken};

use super::{Ends, EngineInfo};
use crate::clock;

/// One request's work on this engine.
#[derive(Debug)]
pub struct Submission {
    /// What to generate.
    pub work: Arc<Generation>,
    /// Which part of it.
    pub mode: Mode,
    /// When nobody wants the result any more.
    pub deadline: Option<Instant>,
    /// When its client asked for it: its first token is due from then on.
    pub arrived: Instant,
}

/// Which part of a request's work an engine does.
#[derive(Debug)]
pub enum Mode {
    /// All of it: the prompt in chunks, then the tokens.
    Generate,
    /// The prompt, and the first token of each choice.
    Prefill,
    /// The tokens after the first, over KV that another engine filled.
    Resume {
        /// The blocks of the whole context, filled.
        table: BlockTable,
        /// What [`super::Event::Prefilled`] brought. Already delivered, as are the ends of choices
        /// that ended with it, so nothing of that is repeated.
        first: Vec<SampledToken>,
    },
}

/// Why a submission was not taken. Nothing of it is kept.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum SubmitError {
    /// As much waits already as may wait.
    #[error("queue is full; about {retry_after:?} of work ahead")]
    QueueFull {
        /// When there should be room again, by the measured prefill rate.
        retry_after: Duration,
    },
    /// It is longer than the model's context, or than the whole KV memory.
    #[error("{tokens} tokens, where at most {tokens_max} fit")]
    TooLong {
        /// Tokens of the prompt, of what was generated before, and of the least there is to add.
        tokens: usize,
        /// The most there may be.
        tokens_max: usize,
    },
    /// The engine takes no more work.
    #[error("engine is shutting down")]
    ShuttingDown,
    /// It contradicts itself or the model.
    #[error("invalid request: {0}")]
    Invalid(String),
}

// === impl Submission ===

impl Submission {
    /// Arrives now, and is wanted whenever it is there.
    #[must_use]
    pub fn new(work: Arc<Generation>, mode: Mode) -> Self {
        Self { work, mode, deadline: None, arrived: clock::now() }
    }

    /// The same, of no use after `deadline`.
    #[must_use]
    pub fn by(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The same, asked for at another time.
    #[must_use]
    pub fn asked_at(self, arrived: Instant) -> Self {
        Self { arrived, ..self }
    }

    /// Checks it against itself and the model.
    pub(crate) fn validate(&self, info: &EngineInfo) -> Result<(), SubmitError> {
        self.validate_work(info)?;
        let ends = Ends::new(&self.work, info);
        let generated = &self.work.generated;
        let wants_more =
            ends.wants_token(generated.len()) && ends.reason_after(generated).is_none();
        if let Mode::Resume { table, first } = &self.mode {
            self.validate_hand_off(info, table, first, wants_more)?;
        }
        let tokens = self.work.context_tokens() + usize::from(wants_more);
        let tokens_max = info.context_tokens_max as usize;
        if tokens > tokens_max {
            return Err(SubmitError::TooLong { tokens, tokens_max });
        }
        Ok(())
    }

    fn validate_work(&self, info: &EngineInfo) -> Result<(), SubmitError> {
        let Generation { prompt, generated, choices, .. } = &*self.work;
        require(!prompt.is_empty(), || "the prompt is empty".to_owned())?;
        require(!choices.is_empty(), || "no choice is asked for".to_owned())?;
        require(choices.len() <= info.sequences_max as usize, || {
            format!("{} choices, where {} sequences run at once", choices.len(), info.sequences_max)
        })?;
        let repeated = (1..choices.len()).find(|&at| choices[..at].contains(&choices[at]));
        require(repeated.is_none(), || format!("a choice is named twice in {choices:?}"))?;
        require(generated.is_empty() || choices.len() == 1, || {
            format!("{} choices can't share generated tokens", choices.len())
        })?;
        let unknown = prompt.iter().chain(&**generated).find(|&&token| token >= info.vocab_size);
        require(unknown.is_none(), || {
            format!("token {} of a vocabulary of {}", unknown.unwrap_or(&0), info.vocab_size)
        })
    }

    fn validate_hand_off(
        &self,
        info: &EngineInfo,
        table: &BlockTable,
        first: &[SampledToken],
        wants_more: bool,
    ) -> Result<(), SubmitError> {
        let work = &self.work;
        require(table.tokens() == work.context_tokens(), || {
            format!("KV of {} tokens for a context of {}", table.tokens(), work.context_tokens())
        })?;
        let slots = table.blocks().len() * info.block_tokens as usize;
        require(slots >= table.tokens(), || {
            format!("{} tokens in blocks with {slots} slots", table.tokens())
        })?;
        let expected: &[u32] = if wants_more { &work.choices } else { &[] };
        let given: Vec<u32> = first.iter().map(|token| token.choice).collect();
        require(given == expected, || {
            format!("first tokens of choices {given:?} for {expected:?}")
        })?;
        let misplaced = first.iter().find(|token| {
            token.index as usize != work.generated.len() || token.token >= info.vocab_size
        });
        require(misplaced.is_none(), || format!("{misplaced:?} isn't a first token"))
    }
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), SubmitError> {
    if holds { Ok(()) } else { Err(SubmitError::Invalid(otherwise())) }
}
