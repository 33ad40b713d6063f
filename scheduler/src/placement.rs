//! Where a request goes: one prefill worker and one decode worker, or one worker of either kind for both phases.
//!
//! A decision is a pure function of what the router sees ([`ClusterSnapshot`]), what is asked
//! ([`PlacementRequest`]) and the time. It comes with its terms, a refusal is computed from the same numbers, and
//! [`Notes`] explain either.

mod editions;
mod group;
mod least_load;
mod ledger;
mod notes;
mod offer;
mod price;
mod seat;
mod snapshot;

use std::time::{Duration, Instant};

use smallvec::SmallVec;
use words::{Address, ClientId, Fingerprint, Generation, Life, WorkerId};

pub use editions::{Edition, choose, editions};
pub use least_load::{HandoffPolicy, LeastLoad};
pub use ledger::{Ledger, LedgerEntry};
pub use notes::{Candidate, Notes, Verdict};
pub use snapshot::{Assigned, CachedTokens, ClusterSnapshot, WorkerView};

use crate::cost::Terms;
use crate::{Forecast, Turns};

/// Chooses workers.
pub trait Placer: Send + Sync {
    /// Places one request.
    ///
    /// # Errors
    /// [`Refusal`], before anything was reserved anywhere.
    fn place(
        &self,
        view: &ClusterSnapshot,
        request: &PlacementRequest<'_>,
        now: Instant,
    ) -> Result<Placement, Refusal>;
}

/// What a decision depends on, of a request.
#[derive(Clone, Copy, Debug)]
pub struct PlacementRequest<'a> {
    /// The model's name, as in [`words::Fingerprint::model`].
    pub model: &'a str,
    /// Tokens to compute before the first new one: the prompt, and output of an earlier attempt.
    pub context_tokens: u32,
    /// The most tokens a sequence of it can hold, prompt and output.
    pub total_tokens_max: u32,
    /// Sequences that share the prompt (OpenAI's `n`); at least 1.
    pub sequences: u32,
    /// Workers not to choose, by life: those that have just failed this request.
    pub excluded: &'a [Life],
    /// Only workers that compute as this one: whose tokens the answer began with, or whom new
    /// requests go to. `None`: any, but all of a placement's workers alike.
    pub fingerprint: Option<&'a Fingerprint>,
    /// Counts this router's requests. Workers that are equal in all else take turns by it.
    pub turn: u64,
    /// The share of what waits that comes before it: see [`crate::Turns::share_ahead`].
    pub share_ahead: f64,
    /// The share of the prompts' tokens that come before its own: see [`crate::Turns::prompt_share_ahead`].
    pub prompt_share_ahead: f64,
    /// Its client has less than its share: see [`crate::Turns::is_short`].
    pub is_short: bool,
    /// Takes down what is considered, where somebody asks.
    pub notes: Option<&'a Notes>,
}

/// The workers chosen, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Generates the tokens, and computes the prompt too if `prefill` is empty.
    pub decode: Address,
    /// What all the workers chosen have in common.
    pub fingerprint: Fingerprint,
    /// Compute the prompt: the chosen worker, then those to try after it, best first.
    pub prefill: Vec<Address>,
    /// Whether the prompt is computed elsewhere than the tokens.
    pub path: Path,
    /// The rule that decided the path.
    pub reason: PlacementReason,
    /// The chosen option's terms.
    pub terms: Terms,
    /// Expected time to the first token: [`Terms::ttft_s`] of `terms`.
    pub estimated_ttft_s: f64,
    /// What the request may expect there.
    pub forecast: Forecast,
    /// Tokens of the prompt that the worker which computes it is thought to have, on any tier.
    pub cached_tokens: u32,
    /// What the choice puts on each worker chosen, for the [`Ledger`].
    pub work: SmallVec<[(WorkerId, Assigned); 2]>,
}

/// Where the prompt is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// On a prefill worker, which hands the KV blocks over.
    Handoff,
    /// On the worker that also generates.
    Local,
}

/// The rule that decided a placement's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlacementReason {
    /// The hand-off costs less.
    HandoffCheaper,
    /// Computing the prompt on the decode worker costs less.
    LocalCheaper,
    /// Generating on a prefill worker costs less.
    PrefillDecodes,
    /// The policy always hands over.
    HandoffPolicy,
    /// The policy never hands over.
    LocalPolicy,
    /// Prefill workers take no more for now; the decode worker does both.
    PrefillPoolFull,
    /// There is no prefill worker; a decode worker does both.
    PrefillPoolEmpty,
    /// There is no decode worker; a prefill worker does both.
    DecodePoolEmpty,
    /// There are decode workers, which have just refused or failed this request; a prefill worker does both.
    DecodePoolExcluded,
}

/// What a candidate would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Compute the prompt and hand it over.
    Prefill,
    /// Receive the prompt and generate.
    Decode,
    /// Both phases.
    Both,
}

/// Why a worker could not be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// It serves another model.
    OtherModel,
    /// It has other weights than those asked for, or computes otherwise.
    OtherFingerprint,
    /// It is starting, draining or gone.
    NotServing,
    /// It doesn't answer.
    Unhealthy,
    /// It has just failed this request.
    Excluded,
    /// The request is longer, or of more sequences, than it can ever hold.
    TooSmall,
    /// It runs and queues all it may.
    Full,
}

/// Why a request was placed nowhere.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// No worker takes work now.
    #[error("no worker is serving")]
    NoWorkers,
    /// No worker has the model.
    #[error("no worker serves this model")]
    ModelMissing,
    /// No worker has the weights that are wanted.
    #[error(
        "no worker with the weights that this answer began with, or that are asked for, is there"
    )]
    WeightsMissing,
    /// All workers have as much as they may queue.
    #[error("all workers are busy; try again in {retry_after:?}")]
    Busy {
        /// When there is likely to be room.
        retry_after: Duration,
    },
    /// No worker could ever hold the request.
    #[error("{tokens} tokens are more than the {tokens_max} that a worker can hold")]
    TooLong {
        /// Tokens of the request: of each sequence, prompt and output.
        tokens: u32,
        /// The most that any worker holds.
        tokens_max: u32,
    },
    /// No worker could ever run so many sequences of the request's length at once.
    #[error(
        "{sequences} sequences of this length are more than the {sequences_max} that a worker can run at once"
    )]
    TooWide {
        /// Sequences of the request.
        sequences: u32,
        /// The most of its length that any worker runs.
        sequences_max: u32,
        /// Tokens of each sequence, prompt and output.
        tokens: u32,
    },
}

// === impl PlacementRequest ===

impl<'a> PlacementRequest<'a> {
    /// The request for `generation`, with nobody excluded.
    #[must_use]
    pub fn new(model: &'a str, generation: &Generation, turn: u64) -> Self {
        let tokens = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            model,
            context_tokens: tokens(generation.context_tokens()),
            total_tokens_max: tokens(generation.total_tokens_max()),
            sequences: tokens(generation.choices.len()).max(1),
            excluded: &[],
            fingerprint: None,
            turn,
            share_ahead: 1.0,
            prompt_share_ahead: 1.0,
            is_short: false,
            notes: None,
        }
    }

    /// The smallest request there can be.
    #[must_use]
    pub fn smallest(model: &'a str, turn: u64) -> Self {
        Self {
            model,
            context_tokens: 1,
            total_tokens_max: 2,
            sequences: 1,
            excluded: &[],
            fingerprint: None,
            turn,
            share_ahead: 1.0,
            prompt_share_ahead: 1.0,
            is_short: false,
            notes: None,
        }
    }

    /// The same request of `client`, which takes turns with others.
    #[must_use]
    pub fn of(self, client: ClientId, turns: &Turns) -> Self {
        let share_ahead = turns.share_ahead(client, self.sequences);
        let prompt_share_ahead = turns.prompt_share_ahead(client, self.context_tokens);
        let is_short = turns.is_short(client, self.sequences);
        Self { share_ahead, prompt_share_ahead, is_short, ..self }
    }

    /// The same request, only on workers that compute as `fingerprint`.
    #[must_use]
    pub fn only(self, fingerprint: &'a Fingerprint) -> Self {
        Self { fingerprint: Some(fingerprint), ..self }
    }

    /// The same request, and what is considered for it is taken down.
    #[must_use]
    pub fn noted(self, notes: Option<&'a Notes>) -> Self {
        Self { notes, ..self }
    }

    /// The same request, not on `excluded`.
    #[must_use]
    pub fn without(self, excluded: &'a [Life]) -> Self {
        Self { excluded, ..self }
    }
}

// === impl PlacementReason ===

impl PlacementReason {
    /// The name used in metrics, traces and headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::HandoffCheaper => "handoff-cheaper",
            Self::LocalCheaper => "local-cheaper",
            Self::PrefillDecodes => "prefill-decodes",
            Self::HandoffPolicy => "handoff-policy",
            Self::LocalPolicy => "local-policy",
            Self::PrefillPoolFull => "prefill-pool-full",
            Self::PrefillPoolEmpty => "prefill-pool-empty",
            Self::DecodePoolEmpty => "decode-pool-empty",
            Self::DecodePoolExcluded => "decode-pool-excluded",
        }
    }
}

// === impl Path ===

impl Path {
    /// The name used in metrics, traces and headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::Local => "local",
        }
    }
}

#[cfg(test)]
mod tests;
