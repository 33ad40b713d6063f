//! Tokens and scores, asked of the sampler for a step.

use words::TokenLogprob;

use super::Pending;
use crate::backend::Choosing;
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::weights::tensor::CudaBuffer;
use crate::batch::{SampleRow, Sampled, ScoreRow};
use crate::error::{EngineError, LogitsFault};

impl Choosing for CudaBackend {
    type Samples = Pending;
    type Scores = Pending;

    // 256 rows of a 128,256-token vocabulary are 131 MB.
    const LOGIT_ROWS_MAX: usize = 256;

    fn sample(
        &mut self,
        logits: &CudaBuffer,
        first: usize,
        requests: &[(usize, &SampleRow<'_>)],
    ) -> Result<Pending, EngineError> {
        if first + requests.len() > self.samples_max {
            let (wanted, most) = (first + requests.len(), self.samples_max);
            return Err(EngineError::Device(format!("{wanted} samples in a step of {most}")));
        }
        let mut list = self.sampler.requests();
        requests.iter().for_each(|(row, request)| list.choose(*row, request));
        let tokens = self.tokens.at(4 * first);
        self.sampler.submit(&self.stream, logits.address(), list, tokens)
    }

    fn sampled(
        &mut self,
        samples: Pending,
    ) -> Result<Vec<Result<Sampled, LogitsFault>>, EngineError> {
        self.bind()?;
        self.sampler.finish(samples)
    }

    fn score(
        &mut self,
        logits: &CudaBuffer,
        requests: &[(usize, &ScoreRow)],
    ) -> Result<Pending, EngineError> {
        let mut list = self.sampler.requests();
        requests.iter().for_each(|(row, request)| list.score(*row, request));
        let tokens = self.tokens.at(4 * self.samples_max);
        self.sampler.submit(&self.stream, logits.address(), list, tokens)
    }

    fn scored(
        &mut self,
        scores: Pending,
    ) -> Result<Vec<Result<TokenLogprob, LogitsFault>>, EngineError> {
        self.bind()?;
        self.sampler.finish_scores(scores)
    }
}
