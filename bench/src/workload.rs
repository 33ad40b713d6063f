//! What clients say.

use std::time::Duration;

mod conversation;
mod fixed;
pub(crate) mod trace;

pub use conversation::Conversation;
pub use fixed::{Fixed, Spread};
pub use trace::{Trace, TraceRequest};

/// A kind of traffic.
#[derive(Clone, Debug)]
pub enum Workload {
    /// Single prompts of one length.
    Fixed(Fixed),
    /// Chats of several turns, each with all that was said before.
    Conversation(Conversation),
    /// Requests that somebody recorded.
    Trace(Trace),
}

/// One client's visit: turns that follow each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// When it begins, from the start of the run; `None`: as [`crate::Arrivals`] says.
    pub at: Option<Duration>,
    /// What it asks, in order.
    pub turns: Vec<Turn>,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What it says.
    pub input: Input,
    /// Tokens to generate: exactly as many, past the model's end of sequence.
    pub output_tokens: u32,
    /// From the answer before it.
    pub after: Duration,
}

/// The two ways to say something.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Token ids, for `/v1/completions`: an exact length.
    Ids(Vec<u32>),
    /// A message after all earlier ones and their answers, for `/v1/chat/completions`.
    Message(String),
}

/// Ids that every tokenizer has and that are rarely special: from 32 up.
const IDS: std::ops::Range<u32> = 32..256;

// === impl Workload ===

impl Workload {
    /// The sessions, the same ones for the same seed.
    pub fn sessions(&self, seed: u64) -> Box<dyn Iterator<Item = Session> + Send + '_> {
        match self {
            Self::Fixed(fixed) => Box::new(fixed.sessions(seed)),
            Self::Conversation(conversation) => Box::new(conversation.sessions(seed)),
            Self::Trace(trace) => Box::new(trace.sessions(seed)),
        }
    }

    /// How many sessions there are, if they end.
    #[must_use]
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Fixed(fixed) => fixed.requests,
            Self::Conversation(chats) => chats.sessions,
            Self::Trace(trace) => Some(trace.heads().count()),
        }
    }

    /// How many requests that is, if it ends.
    #[must_use]
    pub fn requests(&self) -> Option<usize> {
        match self {
            Self::Fixed(fixed) => fixed.requests,
            Self::Conversation(chats) => Some(chats.sessions?.saturating_mul(chats.turns)),
            Self::Trace(trace) => Some(trace.requests.len()),
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Fixed(fixed) => fixed.describe(),
            Self::Conversation(conversation) => conversation.describe(),
            Self::Trace(trace) => trace.describe(),
        }
    }
}

// === impl Session ===

impl Session {
    /// What warms a server up: a recorded chain can take hours, so only its beginning.
    pub(crate) fn opening(mut self, arrivals: crate::Arrivals) -> Self {
        if matches!(arrivals, crate::Arrivals::Recorded { .. }) {
            self.turns.truncate(1);
        }
        self
    }

    /// A visit of one request.
    #[must_use]
    pub fn single(input: Input, output_tokens: u32) -> Self {
        Self { at: None, turns: vec![Turn { input, output_tokens, after: Duration::ZERO }] }
    }
}
