//! One choice: tokens in, text out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use words::{FinishReason, PromptLogprob, SampledToken};

use super::{Delta, Finish, Prompt, TextEvent, TextRequest, TextToken};
use crate::gateway::params::CheckedParams;
use crate::metrics::{ChoiceClock, RequestClock};
use crate::served_model::ServedModel;
use crate::text::{Detokenizer, StopMatcher};

/// One choice of a request, from its tokens to its text.
#[derive(Debug)]
pub(super) struct Choice {
    index: u32,
    model: Arc<ServedModel>,
    params: Arc<CheckedParams>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    clock: ChoiceClock,
    /// Tokens whose text is held back.
    waiting: VecDeque<TextToken>,
    /// Characters decoded, and characters given out.
    decoded: usize,
    released: usize,
    tokens: u32,
    /// A token that ends the sequence, unless another follows.
    last: Option<SampledToken>,
    ended: bool,
}

// === impl Choice ===

impl Choice {
    pub(super) fn new(index: u32, prompt: &Prompt, request: &TextRequest) -> Self {
        let model = Arc::clone(&request.model);
        let params = Arc::clone(&request.params);
        let tokenizer = Arc::clone(&model.tokenizer);
        Self {
            index,
            detokenizer: Detokenizer::new(tokenizer, &prompt.tokens, params.skip_special_tokens),
            stops: StopMatcher::new(Arc::clone(&params.stop_strings), params.include_stop),
            model,
            params,
            clock: ChoiceClock::default(),
            waiting: VecDeque::new(),
            decoded: 0,
            released: 0,
            tokens: 0,
            last: None,
            ended: false,
        }
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
            self.decoded = echo.chars().count();
            self.released = self.decoded;
            let text = echo.clone();
            ready.push_back(TextEvent::Delta(Delta { choice: self.index, text, tokens }));
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
        let mut delta = self.delta();
        let mut found = None;
        if let Some(before) = self.last.take() {
            found = self.read(before, &mut delta.text);
        }
        if self.may_end(&token) {
            self.last = Some(token);
        } else if found.is_none() {
            found = self.read(token, &mut delta.text);
        }
        self.release(delta, ready);
        if let Some(stop) = found {
            self.end(Finish::StopString(stop), clock, ready);
        }
    }

    /// Ends the choice as the worker says.
    pub(super) fn finish(
        &mut self,
        reason: FinishReason,
        clock: &mut RequestClock,
        ready: &mut VecDeque<TextEvent>,
    ) {
        let mut delta = self.delta();
        let mut finish = match reason {
            FinishReason::Stop(token) => Finish::StopToken(token),
            FinishReason::Length => Finish::Length,
        };
        let mut end_token = None;
        let mut found = None;
        match self.last.take() {
            Some(last) if reason == FinishReason::Stop(last.token) && !self.params.include_stop => {
                end_token = Some(last);
            }
            Some(last) => found = self.read(last, &mut delta.text),
            None => {}
        }
        if found.is_none() {
            let mut rest = String::new();
            self.detokenizer.finish(&mut rest);
            found = self.watch(&rest, &mut delta.text);
        }
        match found {
            Some(stop) => finish = Finish::StopString(stop),
            None => self.stops.finish(&mut delta.text),
        }
        if let Some(last) = end_token {
            self.waiting.push_back(self.text_token(last, true));
        }
        self.release(delta, ready);
        self.end(finish, clock, ready);
    }

    /// Reads one token's text into `out`, as far as it is known not to belong to a stop string.
    /// Returns the stop string that is now complete.
    fn read(&mut self, token: SampledToken, out: &mut String) -> Option<String> {
        let before_min = token.index < self.params.min_tokens();
        let mut text = String::new();
        self.detokenizer.push(token.token, &mut text);
        self.waiting.push_back(self.text_token(token, false));
        if before_min {
            self.decoded += text.chars().count();
            out.push_str(&text);
            return None;
        }
        self.watch(&text, out)
    }

    fn watch(&mut self, text: &str, out: &mut String) -> Option<String> {
        self.decoded += text.chars().count();
        let found = self.stops.push(text, out)?;
        self.params.stop_strings.get(found.stop).map(str::to_owned)
    }

    fn text_token(&self, token: SampledToken, ends: bool) -> TextToken {
        TextToken { id: token.token, logprob: token.logprob, offset: self.decoded, ends }
    }

    /// Gives out a delta and the tokens whose text begins in it.
    fn release(&mut self, mut delta: Delta, ready: &mut VecDeque<TextEvent>) {
        self.released += delta.text.chars().count();
        let nothing_held = self.released == self.decoded;
        let released = self.released;
        while let Some(token) =
            self.waiting.pop_front_if(|token| nothing_held || token.offset < released)
        {
            delta.tokens.push(token);
        }
        if !delta.text.is_empty() || !delta.tokens.is_empty() {
            ready.push_back(TextEvent::Delta(delta));
        }
    }

    fn end(&mut self, reason: Finish, clock: &RequestClock, ready: &mut VecDeque<TextEvent>) {
        self.ended = true;
        clock.choice_ended(&self.clock);
        ready.push_back(TextEvent::Finished { choice: self.index, reason });
    }

    /// Whether the sequence may end with this token: then its text has to wait.
    fn may_end(&self, token: &SampledToken) -> bool {
        self.model.is_eos(token.token) || self.params.stop_token_ids().contains(&token.token)
    }

    fn delta(&self) -> Delta {
        Delta { choice: self.index, ..Delta::default() }
    }

    /// The prompt's tokens, where they begin in its text, and how likely they were.
    fn prompt_tokens(&self, prompt: &Prompt, scores: &[PromptLogprob]) -> Vec<TextToken> {
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
            tokens.push(TextToken { id, logprob, offset, ends: false });
            let mut text = String::new();
            reader.push(id, &mut text);
            offset += text.chars().count();
        }
        tokens
    }
}
