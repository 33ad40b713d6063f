//! What a worker's messages bring: checked, and only what the client doesn't have.

use proto::WireError;
use proto::v1;
use proto::v1::generate_response::{Event as Wire, HandoffDone, Started};
use words::{FinishReason, PromptLogprob, SampledToken};

use super::progress::{Gap, Progress, TokenCheck};

/// What one message brings.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// Work has begun.
    Started(Started),
    /// Scores of prompt tokens.
    Scores(Vec<PromptLogprob>),
    /// Tokens, each the next of its choice.
    Tokens(Vec<SampledToken>),
    /// A choice has ended.
    Finished {
        /// Which.
        choice: u32,
        /// Why.
        reason: FinishReason,
    },
    /// The prompt's blocks have been handed over.
    HandedOver(HandoffDone),
    /// Nothing that the client doesn't have.
    Old,
}

/// What a worker sent can't be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Nonsense(String);

// === impl Nonsense ===

impl From<&str> for Nonsense {
    fn from(what: &str) -> Self {
        Self(what.to_owned())
    }
}

impl From<WireError> for Nonsense {
    fn from(error: WireError) -> Self {
        Self(error.to_string())
    }
}

// === impl Progress ===

impl Progress {
    /// Takes a worker's message in.
    ///
    /// # Errors
    /// [`Nonsense`]: nothing of it, nor of what the worker sends after it, is for the client.
    pub fn read(&mut self, message: v1::GenerateResponse) -> Result<News, Nonsense> {
        Ok(match message.event.ok_or("a worker sent an empty event")? {
            Wire::Started(started) => News::Started(started),
            Wire::PromptScores(scores) => {
                let scores: Result<_, WireError> =
                    scores.tokens.into_iter().map(TryInto::try_into).collect();
                let new = self.score(scores?).map_err(|Gap| "a worker left out a score")?;
                if new.is_empty() { News::Old } else { News::Scores(new) }
            }
            Wire::Tokens(tokens) => {
                let new = self.deliver_all(tokens.tokens)?;
                if new.is_empty() { News::Old } else { News::Tokens(new) }
            }
            Wire::Finished(finished) => {
                let (choice, reason) = (finished.choice, finished.reason()?);
                let is_news = self.finish(choice, reason);
                let is_news = is_news.map_err(|Gap| "a choice ended without its last token")?;
                if is_news { News::Finished { choice, reason } } else { News::Old }
            }
            Wire::HandoffDone(done) => News::HandedOver(done),
        })
    }

    fn deliver_all(
        &mut self,
        tokens: Vec<v1::SampledToken>,
    ) -> Result<Vec<SampledToken>, Nonsense> {
        let mut fresh = Vec::with_capacity(tokens.len());
        for token in tokens {
            let token = SampledToken::from(token);
            match self.deliver(&token) {
                TokenCheck::Next => fresh.push(token),
                TokenCheck::Twin => {}
                TokenCheck::Differs => {
                    return Err("a resumed sequence did not repeat its own token".into());
                }
                TokenCheck::Gap => return Err("a worker left out a token".into()),
                TokenCheck::Excess => return Err("a worker sent more than was asked for".into()),
            }
        }
        Ok(fresh)
    }
}
