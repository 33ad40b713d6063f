//! How a device chooses tokens, and scores given ones.

use words::TokenLogprob;

use super::Memory;
use crate::batch::{SampleRow, Sampled, ScoreRow};
use crate::error::{EngineError, LogitsFault};

/// From logits to tokens.
pub trait Choosing: Memory {
    /// Tokens that were asked for and may still be in the making.
    type Samples: Send;
    /// Scores that were asked for and may still be in the making.
    type Scores: Send;

    /// Rows of logits computed at once; bounds their memory to this many vocabularies.
    const LOGIT_ROWS_MAX: usize;

    /// Starts to choose a token for each request.
    ///
    /// - `first`: index of the first request among the step's, for [`crate::StepBatch::fed`] rows of the
    ///   next step.
    /// - `requests`: with the row of `logits` to choose from.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn sample(
        &mut self,
        logits: &Self::Buffer,
        first: usize,
        requests: &[(usize, &SampleRow<'_>)],
    ) -> Result<Self::Samples, EngineError>;

    /// Waits for the tokens of [`Choosing::sample`]; one result per request.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn sampled(
        &mut self,
        samples: Self::Samples,
    ) -> Result<Vec<Result<Sampled, LogitsFault>>, EngineError>;

    /// Starts to score given tokens.
    ///
    /// - `requests`: with the row of `logits` to read.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn score(
        &mut self,
        logits: &Self::Buffer,
        requests: &[(usize, &ScoreRow)],
    ) -> Result<Self::Scores, EngineError>;

    /// Waits for the results of [`Choosing::score`]; one per request.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    fn scored(
        &mut self,
        scores: Self::Scores,
    ) -> Result<Vec<Result<TokenLogprob, LogitsFault>>, EngineError>;
}
