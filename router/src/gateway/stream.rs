//! What comes back for a request: pieces of its replies, until the last of them has ended.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use words::PromptLogprob;

use super::choice::Choice;
use super::event::TextEvent;
use super::request::{Prompt, TextRequest};
use crate::RequestError;
use crate::callers::keys::Turn;
use crate::dispatch::{DispatchError, GenerationEvent, GenerationStream, Route, StreamPlace};
use crate::metrics::{Outcome, RequestClock};

/// Tokens counted as OpenAI counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all prompts.
    pub prompt_tokens: u64,
    /// Of all choices.
    pub completion_tokens: u64,
    /// Of the prompts, those found in a cache.
    pub cached_tokens: u64,
}

/// A request under way, as text. Dropping it cancels the work on every worker.
#[derive(Debug)]
pub struct TextStream {
    sources: Vec<Source>,
    choices: Vec<Choice>,
    ready: VecDeque<TextEvent>,
    unfinished: usize,
    usage: Usage,
    timeout: Duration,
    deadline: Pin<Box<Sleep>>,
    /// The router stops and can't wait any longer.
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    clock: RequestClock,
    _permits: Permits,
    failed: bool,
}

/// One prompt's tokens.
#[derive(Debug)]
struct Source {
    prompt: Prompt,
    route: Route,
    /// `None` once nothing more is wanted from it.
    stream: Option<GenerationStream>,
    /// What came while the prompt's log probabilities are waited for.
    scoring: Option<Scoring>,
}

/// A prompt that is being scored.
#[derive(Debug, Default)]
struct Scoring {
    /// So far; a long prompt's come in parts.
    scores: Vec<PromptLogprob>,
    /// What overtook them.
    early: Vec<GenerationEvent>,
}

/// What a stream is made of.
pub(crate) struct Started {
    pub(crate) sources: Vec<(Prompt, GenerationStream, Route)>,
    pub(crate) request: TextRequest,
    pub(crate) clock: RequestClock,
    pub(crate) permits: Permits,
}

/// What a request holds as long as it is served.
#[derive(Debug)]
pub(crate) struct Permits {
    /// One of the streams that may be open.
    pub(crate) place: StreamPlace,
    /// One of those that its key may run.
    pub(crate) _turn: Option<Turn>,
    /// Keeps the router from stopping.
    pub(crate) work: cluster::node::Permit,
}

// === impl Permits ===

impl Drop for Permits {
    /// The place is for the next at once, whoever works for this request still.
    fn drop(&mut self) {
        self.place.give_back();
    }
}

// === impl TextStream ===

impl TextStream {
    pub(crate) fn new(started: Started) -> Self {
        let Started { sources, request, mut clock, permits } = started;
        let n = request.task.params.n;
        let mut usage = Usage::default();
        let mut choices = Vec::new();
        for (prompt, _, route) in &sources {
            clock.placed(prompt.tokens.len(), route);
            usage.prompt_tokens += prompt.tokens.len() as u64;
            usage.cached_tokens += u64::from(route.cached_tokens);
            let first = choices.len() as u32;
            choices.extend((first..first + n).map(|index| Choice::new(index, prompt, &request)));
        }
        let scored = request.task.scores_prompt();
        let sources = sources.into_iter().map(|(prompt, stream, route)| {
            // The first token has no score: nothing comes before it.
            let scoring = (scored && prompt.tokens.len() > 1).then(Scoring::default);
            Source { prompt, route, stream: Some(stream), scoring }
        });
        let mut stream = Self {
            sources: sources.collect(),
            unfinished: choices.len(),
            choices,
            ready: VecDeque::new(),
            usage,
            timeout: request.caller.timeout,
            deadline: Box::pin(tokio::time::sleep_until(request.caller.deadline().into())),
            stopped: Box::pin(permits.work.cancelled().clone().cancelled_owned()),
            clock,
            _permits: permits,
            failed: false,
        };
        for index in 0..stream.sources.len() {
            if stream.sources[index].scoring.is_none() {
                stream.begin(index, &[]);
            }
        }
        stream
    }

    /// The next piece; `None` after the last choice has finished or after an error. May be dropped
    /// and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Result<TextEvent, RequestError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The next piece, if it is there already.
    pub fn try_next(&mut self) -> Option<Result<TextEvent, RequestError>> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Where the first prompt went.
    #[must_use]
    pub fn route(&self) -> &Route {
        &self.sources[0].route
    }

    /// The tokens so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let completion_tokens = self.choices.iter().map(|choice| u64::from(choice.tokens())).sum();
        Usage { completion_tokens, ..self.usage }
    }

    /// Whether every choice has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.unfinished == 0 && self.ready.is_empty()
    }

    /// Choices, over all prompts.
    #[must_use]
    pub fn choices(&self) -> usize {
        self.choices.len()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<TextEvent, RequestError>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if self.is_finished() {
                    self.clock.end(Outcome::Ok);
                }
                return Poll::Ready(Some(Ok(event)));
            }
            if self.failed || self.unfinished == 0 {
                return Poll::Ready(None);
            }
            match self.poll_sources(cx) {
                Poll::Ready(Ok((source, event))) => self.apply(source, event),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(self.fail(error)))),
                Poll::Pending => {
                    return self.poll_end(cx).map(|error| Some(Err(self.fail(error))));
                }
            }
        }
    }

    /// Ready when there is no more time.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<RequestError> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            let timeout_ms = self.timeout.as_millis() as u64;
            return Poll::Ready(RequestError::Timeout { timeout_ms });
        }
        self.stopped.as_mut().poll(cx).map(|()| RequestError::stopping())
    }

    fn poll_sources(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(usize, GenerationEvent), RequestError>> {
        for (index, source) in self.sources.iter_mut().enumerate() {
            let Some(stream) = &mut source.stream else { continue };
            match stream.poll_next(cx) {
                Poll::Ready(Some(Ok(event))) => return Poll::Ready(Ok((index, event))),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error.into())),
                Poll::Ready(None) => return Poll::Ready(Err(ended_early().into())),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn apply(&mut self, index: usize, event: GenerationEvent) {
        let source = &mut self.sources[index];
        match (event, &mut source.scoring) {
            (GenerationEvent::Started(route), _) => source.route = route,
            (GenerationEvent::PromptLogprobs(scores), Some(scoring)) => {
                scoring.scores.extend(scores);
                if scoring.scores.len() + 1 >= source.prompt.tokens.len() {
                    self.end_scoring(index);
                }
            }
            (GenerationEvent::PromptLogprobs(_), None) => {}
            (event, Some(scoring)) => scoring.early.push(event),
            (GenerationEvent::Tokens(tokens), None) => {
                let now = Instant::now();
                // The tokens of one step, several of one choice only with speculation.
                for token in tokens {
                    let choice = self.choice_of(index, token.choice);
                    if let Some(choice) = choice.filter(|&choice| !self.choices[choice].ended()) {
                        self.choices[choice].push(token, now, &mut self.clock, &mut self.ready);
                        self.note_end(index, choice);
                    }
                }
            }
            (GenerationEvent::Finished { choice, reason }, None) => {
                let choice = self.choice_of(index, choice);
                if let Some(choice) = choice.filter(|&choice| !self.choices[choice].ended()) {
                    self.choices[choice].finish(reason, &mut self.clock, &mut self.ready);
                    self.note_end(index, choice);
                }
            }
        }
    }

    /// Gives out a prompt that has all its scores, and what waited for them.
    fn end_scoring(&mut self, index: usize) {
        if let Some(Scoring { scores, early }) = self.sources[index].scoring.take() {
            self.begin(index, &scores);
            early.into_iter().for_each(|event| self.apply(index, event));
        }
    }

    /// Opens a prompt's choices with its echo; those that want no tokens end here.
    fn begin(&mut self, index: usize, scores: &[PromptLogprob]) {
        let per_source = self.choices.len() / self.sources.len();
        for choice in index * per_source..(index + 1) * per_source {
            let prompt = &self.sources[index].prompt;
            self.choices[choice].begin(prompt, scores, &mut self.clock, &mut self.ready);
            self.note_end(index, choice);
        }
    }

    /// Counts a choice that has just ended, and lets go of a prompt whose choices all have.
    fn note_end(&mut self, index: usize, choice: usize) {
        if !self.choices[choice].ended() {
            return;
        }
        self.unfinished -= 1;
        let per_source = self.choices.len() / self.sources.len();
        let of_source = &self.choices[index * per_source..(index + 1) * per_source];
        if of_source.iter().all(Choice::ended) {
            self.sources[index].stream = None;
        }
    }

    /// The stream's index of a prompt's choice, if it has such a choice.
    fn choice_of(&self, index: usize, choice: u32) -> Option<usize> {
        let per_source = self.choices.len() / self.sources.len();
        let choice = choice as usize;
        (choice < per_source).then_some(index * per_source + choice)
    }

    /// Ends the stream, and the work with it.
    fn fail(&mut self, error: RequestError) -> RequestError {
        self.failed = true;
        self.sources.iter_mut().for_each(|source| source.stream = None);
        self.clock.fail(&error);
        error
    }
}

/// A dispatcher that lets go of a stream owes it an error; that one got lost.
fn ended_early() -> DispatchError {
    DispatchError::new(
        cluster::ErrorCode::Internal,
        "the tokens ended before the last choice was finished",
    )
}
