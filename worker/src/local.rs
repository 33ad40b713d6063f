//! Serving a request on one worker: the prompt is computed here, the tokens generated here.

use std::sync::Arc;
use std::time::Instant;

use engine::{EngineHandle, Event, EventStream, Mode, Submission};
use proto::v1;
use proto::v1::generate_response::{Event as Wire, Path, PromptScores, Started, Tokens};
use scheduler::Generation;

use crate::{Responses, WorkerError};

/// Computes `work` from its prompt to its last token on this worker's engine.
///
/// # Errors
/// As the engine's: refused, failed, past the deadline.
pub async fn generate(
    engine: &EngineHandle,
    work: Arc<Generation>,
    deadline: Instant,
    responses: &Responses<v1::GenerateResponse>,
) -> Result<(), WorkerError> {
    let submission = Submission { work, mode: Mode::Generate, deadline: Some(deadline) };
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
            Event::PromptLogprobs(scores) => Wire::PromptScores(prompt_scores(&scores)),
            Event::Token(token) => Wire::Tokens(Tokens { tokens: vec![(&token).into()] }),
            Event::Finished { choice, reason } => Wire::Finished(v1::Finished::new(choice, reason)),
            Event::Failed(failure) => return Err(failure.into()),
            // Only a prefill for somebody else has pages to tell of.
            Event::PagesFilled(_) | Event::Prefilled { .. } => continue,
        };
        responses.send(v1::GenerateResponse { event: Some(wire) }).await?;
    }
    Ok(())
}

fn prompt_scores(scores: &[scheduler::PromptLogprob]) -> PromptScores {
    PromptScores { tokens: scores.iter().map(Into::into).collect() }
}
