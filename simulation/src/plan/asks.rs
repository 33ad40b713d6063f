//! Who asks what, and when.

use std::ops::Range;
use std::time::Duration;

use kv_cache::TokenId;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use words::{ClientId, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt};

use super::{CALM_AFTER, SETTLING};
use crate::checks::ledger::{Ask, Habit};
use crate::nodes::script::VOCAB;

/// Requests before and while things go wrong.
const ASKS: usize = 24;
/// Requests of a crowd that comes all at once.
const CROWD: usize = 24;
/// Requests after all is well again.
const LAST_ASKS: usize = 4;
/// Choices of a request, at most.
const CHOICES_MAX: u32 = 4;
/// Parts of an answer, at most.
const PARTS_MAX: usize = 3;
/// Clients that are told apart.
const CLIENTS: u64 = 4;

/// Draws requests.
struct Asks<'a> {
    rng: &'a mut ChaCha8Rng,
    routers: usize,
    /// How prompts begin.
    stems: Vec<Vec<TokenId>>,
    drawn: Vec<Ask>,
}

/// - `crowd`: whether there is a crowd.
pub(super) fn draw(rng: &mut ChaCha8Rng, routers: usize, crowd: bool) -> Vec<Ask> {
    let stems = (0..3).map(|_| tokens(rng, 4..24)).collect();
    let mut asks = Asks { rng, routers, stems, drawn: Vec::new() };
    asks.add(ASKS, 2_000..13_000);
    if crowd {
        let from = asks.rng.random_range(5_000..12_000);
        asks.add(ASKS + CROWD, from..from + 200);
    }
    let well = (CALM_AFTER + SETTLING).as_millis() as u64;
    let count = asks.drawn.len() + LAST_ASKS;
    asks.add(count, well + 200..well + 1_500);
    asks.drawn
}

// === impl Asks ===

impl Asks<'_> {
    /// Adds answers at times of `span`, until there are `count` requests.
    fn add(&mut self, count: usize, span: Range<u64>) {
        while self.drawn.len() < count {
            let left = count - self.drawn.len();
            self.add_answer(left, &span);
        }
    }

    /// One answer, whose parts are asked for at once.
    fn add_answer(&mut self, parts_max: usize, span: &Range<u64>) {
        let first = self.drawn.len();
        let parts = if self.chance(0.1) { self.rng.random_range(2..=PARTS_MAX) } else { 1 };
        let at = Duration::from_millis(self.rng.random_range(span.clone()));
        let router = self.rng.random_range(0..self.routers);
        for _ in 0..parts.min(parts_max) {
            let (patience, habit) = (self.patience(), self.habit());
            let generation = self.generation();
            self.drawn.push(Ask { at, router, answer: first, patience, habit, generation });
        }
    }

    /// How long a client waits: some hardly at all.
    fn patience(&mut self) -> Duration {
        let span = if self.chance(0.12) { 5..1_500 } else { 4_000..25_000 };
        Duration::from_millis(self.rng.random_range(span))
    }

    fn habit(&mut self) -> Habit {
        match self.rng.random_range(0..20) {
            0 => Habit::LeavesAfter(Duration::from_millis(self.rng.random_range(0..60))),
            1 => Habit::LeavesAfter(Duration::from_millis(self.rng.random_range(60..2_000))),
            2 | 3 => Habit::LeavesAt(self.rng.random_range(1..12)),
            4 => Habit::Rests(Duration::from_millis(self.rng.random_range(500..6_000))),
            _ => Habit::Listens,
        }
    }

    fn generation(&mut self) -> Generation {
        let prompt = self.prompt();
        let choices = if self.chance(0.2) { self.rng.random_range(2..=CHOICES_MAX) } else { 1 };
        // As many as a worker has room for.
        let longest = if choices == 1 && self.chance(0.9) { 40 } else { 100 / choices };
        Generation {
            id: RequestId(format!("sim-{}", self.drawn.len()).into()),
            client: ClientId(self.rng.random_range(0..CLIENTS)),
            targets: Targets::default(),
            prompt_logprobs: self.chance(0.1).then(|| self.rng.random_range(0..3)),
            prompt: prompt.into(),
            generated: [].into(),
            choices: (0..choices).collect(),
            sampling: self.sampling(),
            stop: self.stop(longest),
            salt: TenantSalt(if self.chance(0.2) { b"tenant"[..].into() } else { [].into() }),
        }
    }

    fn prompt(&mut self) -> Vec<TokenId> {
        let stem = self.rng.random_range(0..self.stems.len());
        let rest = tokens(self.rng, 1..20);
        // One token alone is the shortest that there is.
        if self.chance(0.05) { vec![rest[0]] } else { [&self.stems[stem][..], &rest].concat() }
    }

    fn sampling(&mut self) -> Sampling {
        let logprobs = self.chance(0.2).then(|| self.rng.random_range(0..4));
        Sampling { seed: self.rng.random(), logprobs, ..Sampling::default() }
    }

    fn stop(&mut self, longest: u32) -> StopRules {
        let max_tokens = self.rng.random_range(1..longest);
        StopRules {
            max_tokens,
            min_tokens: if self.chance(0.1) { self.rng.random_range(0..max_tokens) } else { 0 },
            ignore_eos: self.chance(0.5),
            stop_token_ids: if self.chance(0.15) { tokens(self.rng, 1..4) } else { Vec::new() },
        }
    }

    fn chance(&mut self, chance: f64) -> bool {
        self.rng.random_bool(chance)
    }
}

fn tokens(rng: &mut ChaCha8Rng, count: Range<usize>) -> Vec<TokenId> {
    (0..rng.random_range(count)).map(|_| rng.random_range(1..VOCAB)).collect()
}
