//! Serving a request on one worker: the prompt is computed here, the tokens generated here.

use std::sync::Arc;
use std::time::Instant;

use engine::{EngineHandle, Event, EventStream, Mode, Submission};
use proto::v1;
use proto::v1::generate_response::{Event as Wire, Path, PromptScores, Started, Tokens};
use words::{Generation, PromptLogprob};

use crate::{Responses, WorkerError};

/// Scores of one message: with 128 alternatives of 12 bytes each they take 1.5 MiB, where 8 may be sent.
pub const SCORES_MAX: usize = 1024;

/// Computes `work` from its prompt to its last token on this worker's engine.
///
/// # Errors
/// As the engine's: refused, failed, past the deadline.
pub async fn generate(
    engine: &EngineHandle,
    work: Arc<Generation>,
    deadline: Instant,
    asked_at: Instant,
    responses: &Responses<v1::GenerateResponse>,
) -> Result<(), WorkerError> {
    let submission = Submission::new(work, Mode::Generate).by(deadline).asked_at(asked_at);
    relay(engine.submit(submission)?, responses).await
}

/// Passes an engine's events on until every choice has finished.
///
/// # Errors
/// [`WorkerError::Cancelled`] if the caller went away; otherwise the engine's own failure.
pub async fn relay(
    mut events: EventStream,
    responses: &Responses<v1::GenerateResponse>,
) -> Result<(), WorkerError> {
    while let Some(event) = events.recv().await {
        let wire = match event {
            Event::Started { cached_tokens } => Wire::Started(Started {
                path: Path::Local.into(),
                prefill_worker_id: String::new(),
                cached_tokens,
            }),
            Event::PromptLogprobs(scores) => {
                for scores in scores_in_parts(&scores) {
                    responses.send(response(Wire::PromptScores(scores))).await?;
                }
                continue;
            }
            Event::Token(token) => Wire::Tokens(Tokens { tokens: vec![(&token).into()] }),
            Event::Finished { choice, reason } => Wire::Finished(v1::Finished::new(choice, reason)),
            Event::Failed(failure) => return Err(failure.into()),
            // Only a prefill for somebody else has pages to tell of.
            Event::PagesFilled(_) | Event::Prefilled { .. } => continue,
        };
        responses.send(response(wire)).await?;
    }
    Ok(())
}

fn response(event: Wire) -> v1::GenerateResponse {
    v1::GenerateResponse { event: Some(event), seal: 0 }
}

fn scores_in_parts(scores: &[PromptLogprob]) -> impl Iterator<Item = PromptScores> {
    let parts = scores.chunks(SCORES_MAX);
    parts.map(|part| PromptScores { tokens: part.iter().map(Into::into).collect() })
}
