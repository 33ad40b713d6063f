//! What clients asked and heard, compared with what they should have heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::ErrorCode;
use kv_cache::TokenId;
use parking_lot::Mutex;
use scheduler::{FinishReason, Generation, SampledToken};

use crate::checks::Verdicts;
use crate::script::{EOS, next_token};

/// How far behind its deadline the end of a request may be told.
const LATE_MAX: Duration = Duration::from_millis(500);

/// The longest wait for a first token while all is well and there is little to do.
const FIRST_TOKEN_MAX: Duration = Duration::from_secs(4);

/// A request that a client makes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// When.
    pub at: Duration,
    /// Which router is asked, counted from 0.
    pub router: usize,
    /// How long the client waits.
    pub patience: Duration,
    /// What for.
    pub generation: Generation,
}

/// How it went for one request.
#[derive(Clone, Debug, Default)]
struct Heard {
    sent: Option<Duration>,
    /// Weights that everything heard so far may be of.
    weights: Vec<u64>,
    tokens: BTreeMap<u32, Vec<TokenId>>,
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
    /// The router was lost.
    RouterLost,
}

/// All requests. A clone is another handle to the same.
#[derive(Clone)]
pub struct Ledger {
    asks: Arc<Vec<Ask>>,
    heard: Arc<Mutex<Vec<Heard>>>,
    verdicts: Verdicts,
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

// === impl Ledger ===

impl Ledger {
    /// - `weights`: of the models that may answer.
    #[must_use]
    pub fn new(asks: Vec<Ask>, weights: &[u64], verdicts: Verdicts, calm: Calm) -> Self {
        let heard = Heard { weights: weights.to_vec(), ..Heard::default() };
        let heard = vec![heard; asks.len()];
        Self { asks: Arc::new(asks), heard: Arc::new(Mutex::new(heard)), verdicts, calm }
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

    /// Holds that nobody starves: where all is well, the first token comes soon.
    fn check_patience(&self, ask: usize, now: Duration) {
        let heard = &self.heard.lock()[ask];
        let sent = heard.sent.filter(|_| heard.tokens.is_empty()).unwrap_or(now);
        if now > sent + FIRST_TOKEN_MAX && self.calm.serves(sent, now) {
            let waited = (now - sent).as_secs_f64();
            self.verdicts.violated(format!("request {ask}: {waited:.3} s to its first token"));
        }
    }

    fn token(&self, ask: usize, token: &SampledToken) {
        let generation = &self.asks[ask].generation;
        let mut heard = self.heard.lock();
        let heard = &mut heard[ask];
        let before = heard.tokens.entry(token.choice).or_default();
        if token.index as usize != before.len() || heard.finished.contains_key(&token.choice) {
            let wrong = format!("request {ask}: {token:?} after {} tokens", before.len());
            return self.verdicts.violated(wrong);
        }
        let context = [&generation.prompt[..], before].concat();
        heard.weights.retain(|&weights| {
            next_token(weights, &context, &generation.sampling, token.choice) == token.token
        });
        before.push(token.token);
        if heard.weights.is_empty() {
            self.verdicts.violated(format!("request {ask}: a wrong token, {token:?}"));
        }
    }

    /// A choice ended.
    pub fn finished(&self, ask: usize, choice: u32, reason: FinishReason) {
        let stop = &self.asks[ask].generation.stop;
        let mut heard = self.heard.lock();
        let tokens = heard[ask].tokens.get(&choice).map_or(&[][..], |tokens| tokens);
        let right = match reason {
            FinishReason::Stop(token) => {
                !stop.ignore_eos && token == EOS && tokens.last() == Some(&EOS)
            }
            FinishReason::Length => tokens.len() == stop.max_tokens as usize,
        };
        if !right {
            let count = tokens.len();
            self.verdicts.violated(format!("request {ask}: {reason:?} after {count} tokens"));
        }
        heard[ask].finished.insert(choice, reason);
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
            End::Done if heard.finished.len() < ask.generation.choices.len() => {
                self.verdicts.violated(format!("request {number}: lost without an error"));
            }
            End::Failed(code) if self.is_unjust(code, sent, now) => {
                let (sent, now) = (sent.as_secs_f64(), now.as_secs_f64());
                self.verdicts.violated(format!(
                    "request {number}: {code:?} at {now:.3} s (sent at {sent:.3} s), \
                     though the cluster is well"
                ));
            }
            _ => {}
        }
    }

    /// Whether a failure has no fault to blame.
    fn is_unjust(&self, code: ErrorCode, sent: Duration, now: Duration) -> bool {
        match code {
            // A retry after it is the client's.
            ErrorCode::Busy => false,
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
            sent.is_some_and(|sent| now > sent + ask.patience + LATE_MAX)
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
