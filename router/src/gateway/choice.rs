//! One choice: tokens in, pieces of a reply out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use words::{FinishReason, PromptLogprob, SampledToken};

use super::event::{Finish, TextEvent};
use super::params::CheckedParams;
use super::request::{Prompt, TextRequest};
use crate::metrics::{ChoiceClock, RequestClock};
use crate::served_model::ServedModel;
use crate::text::reply::stop::StopMatch;
use crate::text::reply::{Reply, ReplyToken};
use crate::text::{Detokenizer, StopMatcher};

/// One choice of a request, from its tokens to its end.
#[derive(Debug)]
pub(super) struct Choice {
    index: u32,
    model: Arc<ServedModel>,
    params: Arc<CheckedParams>,
    reply: Reply,
    clock: ChoiceClock,
    tokens: u32,
    /// A token that ends the sequence, unless another follows.
    last: Option<SampledToken>,
    ended: bool,
}

// === impl Choice ===

impl Choice {
    pub(super) fn new(index: u32, prompt: &Prompt, request: &TextRequest) -> Self {
        let model = Arc::clone(&request.task.model);
        let params = Arc::clone(&request.task.params);
        let tokenizer = Arc::clone(&model.tokenizer);
        let reply = Reply::new(
            Detokenizer::new(tokenizer, &prompt.tokens, params.skip_special_tokens),
            StopMatcher::new(Arc::clone(&params.stop_strings), params.include_stop),
        );
        let clock = ChoiceClock::default();
        Self { index, model, params, reply, clock, tokens: 0, last: None, ended: false }
    }

    /// Tokens generated, those that ended the sequence included.
    pub(super) fn tokens(&self) -> u32 {
        self.tokens
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Opens the text with the prompt, if that is wanted.
    pub(super) fn begin(
        &mut self,
        prompt: &Prompt,
        scores: &[PromptLogprob],
        clock: &mut RequestClock,
        ready: &mut VecDeque<TextEvent>,
    ) {
        if let Some(echo) = &prompt.echo {
            let tokens = self.prompt_tokens(prompt, scores);
            let piece = self.reply.echo(echo, tokens);
            ready.push_back(TextEvent::Piece { choice: self.index, piece });
        }
        if self.params.wants_nothing() {
            self.end(Finish::Length, clock, ready);
        }
    }

    /// Takes the next token.
    pub(super) fn push(
        &mut self,
        token: SampledToken,
        now: Instant,
        clock: &mut RequestClock,
        ready: &mut VecDeque<TextEvent>,
    ) {
        self.tokens += 1;
        clock.tokens(&mut self.clock, 1, now);
        let mut found = None;
        if let Some(before) = self.last.take() {
            found = self.read(before);
        }
        if self.may_end(&token) {
            self.last = Some(token);
        } else if found.is_none() {
            found = self.read(token);
        }
        self.release(ready);
        if let Some(stop) = found {
            self.end(self.stopped_by(stop), clock, ready);
        }
    }

    /// Ends the choice as the worker says.
    pub(super) fn finish(
        &mut self,
        reason: FinishReason,
        clock: &mut RequestClock,
        ready: &mut VecDeque<TextEvent>,
    ) {
        let mut end_token = None;
        let mut found = None;
        match self.last.take() {
            Some(last) if reason == FinishReason::Stop(last.token) && !self.params.include_stop => {
                end_token = Some(last);
            }
            Some(last) => found = self.read(last),
            None => {}
        }
        let found = found.or_else(|| self.reply.finish());
        if let Some(last) = end_token {
            self.reply.note_end(last);
        }
        self.release(ready);
        let finish = match (found, reason) {
            (Some(stop), _) => self.stopped_by(stop),
            (None, FinishReason::Stop(token)) => Finish::StopToken(token),
            (None, FinishReason::Length) => Finish::Length,
        };
        self.end(finish, clock, ready);
    }

    fn read(&mut self, token: SampledToken) -> Option<StopMatch> {
        let may_stop = token.index >= self.params.min_tokens();
        self.reply.read(token, may_stop)
    }

    fn release(&mut self, ready: &mut VecDeque<TextEvent>) {
        if let Some(piece) = self.reply.take() {
            ready.push_back(TextEvent::Piece { choice: self.index, piece });
        }
    }

    fn stopped_by(&self, stop: StopMatch) -> Finish {
        let stop = self.params.stop_strings.get(stop.stop).unwrap_or_default();
        Finish::StopString(stop.to_owned())
    }

    fn end(&mut self, reason: Finish, clock: &mut RequestClock, ready: &mut VecDeque<TextEvent>) {
        self.ended = true;
        clock.choice_ended(&self.clock);
        ready.push_back(TextEvent::Finished { choice: self.index, reason });
    }

    /// Whether the sequence may end with this token: then its text has to wait.
    fn may_end(&self, token: &SampledToken) -> bool {
        self.model.is_eos(token.token) || self.params.stop_token_ids().contains(&token.token)
    }

    /// The prompt's tokens, where they begin in its text, and how likely they were.
    fn prompt_tokens(&self, prompt: &Prompt, scores: &[PromptLogprob]) -> Vec<ReplyToken> {
        if self.params.sampling.logprobs.is_none() {
            return Vec::new();
        }
        let tokenizer = Arc::clone(&self.model.tokenizer);
        let mut reader = Detokenizer::new(tokenizer, &[], self.params.skip_special_tokens);
        let (mut offset, mut scores) = (0, scores.iter().peekable());
        let mut tokens = Vec::with_capacity(prompt.tokens.len());
        for (index, &id) in prompt.tokens.iter().enumerate() {
            let score = scores.next_if(|score| score.index as usize == index);
            let logprob = score.map(|score| score.logprob.clone());
            tokens.push(ReplyToken { id, logprob, offset, ends: false });
            let mut text = String::new();
            reader.push(id, &mut text);
            offset += text.chars().count();
        }
        tokens
    }
}
