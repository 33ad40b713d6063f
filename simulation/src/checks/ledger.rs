//! What clients asked and heard, compared with what they should have heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::ErrorCode;
use kv_cache::TokenId;
use parking_lot::Mutex;
use words::{FinishReason, Generation, PromptLogprob, SampledToken};

use super::Verdicts;
use super::coverage::Coverage;
use crate::nodes::script::{next_token, prompt_logprob, stops};

/// How far behind its deadline the end of a request may be told.
const LATE_MAX: Duration = Duration::from_millis(500);

/// The longest wait for a first token while all is well and there is little to do.
const FIRST_TOKEN_MAX: Duration = Duration::from_secs(4);

/// With less time than this a request may come too late though all is well.
const PATIENT: Duration = Duration::from_secs(4);

/// A request that a client makes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// When.
    pub at: Duration,
    /// Which router is asked, counted from 0.
    pub router: usize,
    /// The answer that it is a part of: the number of the first request for it.
    pub answer: usize,
    /// How long the client waits.
    pub patience: Duration,
    /// How the client listens.
    pub habit: Habit,
    /// What for.
    pub generation: Generation,
}

/// How a client listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// To the end.
    Listens,
    /// Hangs up after a time.
    LeavesAfter(Duration),
    /// Hangs up once it has so many tokens.
    LeavesAt(usize),
    /// Reads nothing for so long after its first token.
    Rests(Duration),
}

/// How it went for one request.
#[derive(Clone, Debug, Default)]
struct Heard {
    sent: Option<Duration>,
    tokens: BTreeMap<u32, Vec<TokenId>>,
    /// Prompt tokens scored, the first one counted among them.
    scored: usize,
    finished: BTreeMap<u32, FinishReason>,
    end: Option<End>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every choice came to its end.
    Done,
    /// With an error.
    Failed(ErrorCode),
    /// The client hung up.
    Left,
    /// The router was lost.
    RouterLost,
}

/// All requests. A clone is another handle to the same.
#[derive(Clone)]
pub struct Ledger {
    asks: Arc<Vec<Ask>>,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// Weights that everything heard so far of an answer may be of, by its number.
    weights: Arc<Mutex<BTreeMap<usize, Vec<u64>>>>,
    verdicts: Verdicts,
    coverage: Coverage,
    calm: Calm,
}

/// When a cluster has no excuse.
#[derive(Clone)]
pub struct Calm {
    /// Whether it has been well for long enough to serve whatever comes.
    pub settled: Arc<dyn Fn(Duration) -> bool + Send + Sync>,
    /// Whether it should then serve it soon.
    pub prompt: bool,
}

// === impl Calm ===

impl Calm {
    /// Whether what is sent then should be done by then.
    fn serves(&self, sent: Duration, now: Duration) -> bool {
        self.prompt && (self.settled)(sent) && (self.settled)(now)
    }
}

// === impl Ask ===

impl Ask {
    /// Whether `token` ends a choice that had `count` tokens before it.
    fn is_stop(&self, token: TokenId, count: usize) -> bool {
        let may_stop = count >= self.generation.stop.min_tokens as usize;
        may_stop && stops(&self.generation).contains(&token)
    }

    /// How long after its beginning it must have ended.
    fn time_max(&self) -> Duration {
        let rest = if let Habit::Rests(rest) = self.habit { rest } else { Duration::ZERO };
        self.patience + rest + LATE_MAX
    }
}

// === impl Ledger ===

impl Ledger {
    /// - `weights`: of the models that may answer.
    #[must_use]
    pub fn new(
        asks: Vec<Ask>,
        weights: &[u64],
        verdicts: Verdicts,
        coverage: Coverage,
        calm: Calm,
    ) -> Self {
        let heard = vec![Heard { scored: 1, ..Heard::default() }; asks.len()];
        let weights = asks.iter().map(|ask| (ask.answer, weights.to_vec())).collect();
        Self {
            asks: Arc::new(asks),
            heard: Arc::new(Mutex::new(heard)),
            weights: Arc::new(Mutex::new(weights)),
            verdicts,
            coverage,
            calm,
        }
    }

    /// The requests.
    #[must_use]
    pub fn asks(&self) -> &[Ask] {
        &self.asks
    }

    /// A request was sent.
    pub fn sent(&self, ask: usize, now: Duration) {
        self.heard.lock()[ask].sent = Some(now);
    }

    /// Tokens came.
    pub fn tokens(&self, ask: usize, tokens: &[SampledToken], now: Duration) {
        self.check_patience(ask, now);
        for token in tokens {
            self.token(ask, token);
        }
    }

    /// How many tokens came of a request.
    #[must_use]
    pub fn heard(&self, ask: usize) -> usize {
        self.heard.lock()[ask].tokens.values().map(Vec::len).sum()
    }

    /// Holds that nobody starves: where all is well, the first token comes soon.
    fn check_patience(&self, ask: usize, now: Duration) {
        let heard = &self.heard.lock()[ask];
        let sent = heard.sent.filter(|_| heard.tokens.is_empty()).unwrap_or(now);
        if now > sent + FIRST_TOKEN_MAX && self.calm.serves(sent, now) {
            let waited = (now - sent).as_secs_f64();
            self.verdicts.violated(format!("request {ask}: {waited:.3} s to its first token"));
        }
    }

    fn token(&self, number: usize, token: &SampledToken) {
        let ask = &self.asks[number];
        let mut heard = self.heard.lock();
        let heard = &mut heard[number];
        let before = heard.tokens.entry(token.choice).or_default();
        let is_over = heard.finished.contains_key(&token.choice)
            || before.split_last().is_some_and(|(&last, others)| ask.is_stop(last, others.len()));
        if token.index as usize != before.len() || is_over {
            let wrong = format!("request {number}: {token:?} after {} tokens", before.len());
            return self.verdicts.violated(wrong);
        }
        let output = before.clone();
        before.push(token.token);
        let fits = |weights| {
            let wanted = next_token(weights, &ask.generation, &output, token.choice);
            wanted.token == token.token && wanted.logprob == token.logprob
        };
        if !self.narrow(ask.answer, fits) {
            self.verdicts.violated(format!("request {number}: a wrong token, {token:?}"));
        }
    }

    /// Scores of the prompt came.
    pub fn scores(&self, number: usize, scores: &[PromptLogprob]) {
        let ask = &self.asks[number];
        let (prompt, top) = (&ask.generation.prompt, ask.generation.prompt_logprobs);
        for score in scores {
            let scored = &mut self.heard.lock()[number].scored;
            let (index, is_next) = (score.index as usize, score.index as usize == *scored);
            let fits = |weights| {
                top.is_some_and(|top| prompt_logprob(weights, prompt, index, top) == score.logprob)
            };
            if !is_next || index >= prompt.len() || !self.narrow(ask.answer, fits) {
                let wrong = format!("request {number}: a wrong score, {score:?} after {scored}");
                return self.verdicts.violated(wrong);
            }
            *scored += 1;
        }
    }

    /// Keeps the weights that an answer may be of; whether there are any.
    fn narrow(&self, answer: usize, fits: impl Fn(u64) -> bool) -> bool {
        let mut weights = self.weights.lock();
        let weights = weights.entry(answer).or_default();
        weights.retain(|&weights| fits(weights));
        !weights.is_empty()
    }

    /// A choice ended.
    pub fn finished(&self, number: usize, choice: u32, reason: FinishReason) {
        let ask = &self.asks[number];
        let mut heard = self.heard.lock();
        let tokens = heard[number].tokens.get(&choice).map_or(&[][..], |tokens| tokens);
        let right = match (reason, tokens.split_last()) {
            (FinishReason::Stop(token), Some((&last, others))) => {
                token == last && ask.is_stop(last, others.len())
            }
            (FinishReason::Stop(_), None) => false,
            (FinishReason::Length, _) => tokens.len() == ask.generation.stop.max_tokens as usize,
        };
        if !right {
            let count = tokens.len();
            self.verdicts.violated(format!("request {number}: {reason:?} after {count} tokens"));
        }
        heard[number].finished.insert(choice, reason);
    }

    /// A request ended.
    pub fn ended(&self, number: usize, end: End, now: Duration) {
        let ask = &self.asks[number];
        let mut heard = self.heard.lock();
        let heard = &mut heard[number];
        if heard.end.replace(end).is_some() {
            return self.verdicts.violated(format!("request {number}: ended twice"));
        }
        let sent = heard.sent.unwrap_or(ask.at);
        match end {
            End::Done if !heard.is_whole(ask) => {
                self.verdicts.violated(format!("request {number}: lost without an error"));
            }
            End::Failed(code) if self.is_unjust(ask, code, sent, now) => {
                let (sent, now) = (sent.as_secs_f64(), now.as_secs_f64());
                self.verdicts.violated(format!(
                    "request {number}: {code:?} at {now:.3} s (sent at {sent:.3} s), \
                     though the cluster is well"
                ));
            }
            _ => {}
        }
        self.count(ask, heard, end);
    }

    fn count(&self, ask: &Ask, heard: &Heard, end: End) {
        let way = match end {
            End::Done => "answer to its end",
            End::Left if heard.tokens.is_empty() => "client gone before its first token",
            End::Left => "client gone in the middle",
            End::Failed(ErrorCode::Timeout) => "deadline passed",
            End::RouterLost => "router lost with its requests",
            End::Failed(_) => return,
        };
        self.coverage.reached(way);
        let is_done = |has: bool| u64::from(has && end == End::Done);
        let generation = &ask.generation;
        let is_part = self.asks.iter().filter(|other| other.answer == ask.answer).count() > 1;
        self.coverage.add("several choices", is_done(generation.choices.len() > 1));
        self.coverage.add("logprobs", is_done(generation.sampling.logprobs.is_some()));
        self.coverage.add("prompt scored", is_done(generation.prompt_logprobs.is_some()));
        self.coverage.add("answer in several parts", is_done(is_part));
    }

    /// Whether a failure has no fault to blame.
    fn is_unjust(&self, ask: &Ask, code: ErrorCode, sent: Duration, now: Duration) -> bool {
        match code {
            // A retry after it is the client's.
            ErrorCode::Busy => false,
            // Who rests may use up its time, and who has little time may lack it.
            ErrorCode::Timeout if matches!(ask.habit, Habit::Rests(_)) => false,
            ErrorCode::Timeout if ask.patience < PATIENT => false,
            // Its time may have been used up earlier.
            ErrorCode::Timeout => self.calm.serves(sent, now),
            _ => (self.calm.settled)(now),
        }
    }

    /// A router was lost, and with it whoever it served.
    pub fn router_lost(&self, router: usize, now: Duration) {
        for number in 0..self.asks.len() {
            let open = {
                let heard = &self.heard.lock()[number];
                heard.sent.is_some() && heard.end.is_none()
            };
            if open && self.asks[number].router == router {
                self.ended(number, End::RouterLost, now);
            }
        }
    }

    /// Holds that nobody waits beyond his deadline.
    ///
    /// - `runs`: which routers run, and so can be blamed.
    pub fn check_deadlines(&self, now: Duration, runs: impl Fn(usize) -> bool) {
        let late = |ask: &Ask, heard: &Heard| {
            let sent = heard.sent.filter(|_| heard.end.is_none() && runs(ask.router));
            sent.is_some_and(|sent| now > sent + ask.time_max())
        };
        let found: Vec<usize> = {
            let heard = self.heard.lock();
            let pairs = self.asks.iter().zip(heard.iter()).enumerate();
            pairs.filter(|(_, (ask, heard))| late(ask, heard)).map(|(number, _)| number).collect()
        };
        for number in found {
            self.verdicts.violated(format!("request {number}: past its deadline, and no end"));
            self.heard.lock()[number].end = Some(End::Failed(ErrorCode::Timeout));
        }
    }

    /// Whether every request has ended, or never began.
    #[must_use]
    pub fn is_done(&self, now: Duration) -> bool {
        let heard = self.heard.lock();
        let open =
            |ask: &Ask, heard: &Heard| ask.at >= now || heard.sent.is_some() && heard.end.is_none();
        !self.asks.iter().zip(heard.iter()).any(|(ask, heard)| open(ask, heard))
    }

    /// Requests that came to a good end, and all that were sent.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let heard = self.heard.lock();
        let done = heard.iter().filter(|heard| heard.end == Some(End::Done)).count();
        (done, heard.iter().filter(|heard| heard.sent.is_some()).count())
    }
}

// === impl Heard ===

impl Heard {
    /// Whether everything came that was asked for.
    fn is_whole(&self, ask: &Ask) -> bool {
        let generation = &ask.generation;
        let is_scored =
            generation.prompt_logprobs.is_none() || self.scored == generation.prompt.len();
        self.finished.len() == generation.choices.len() && is_scored
    }
}

#[cfg(test)]
mod tests;
