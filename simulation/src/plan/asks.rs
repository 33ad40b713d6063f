//! Who asks what, and when.

use std::time::Duration;

use kv_cache::TokenId;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use scheduler::{ClientId, Generation, RequestId, Sampling, StopRules, TenantSalt};

use super::{CALM_AFTER, SETTLING};
use crate::ledger::Ask;
use crate::script::VOCAB;

/// Requests before and while things go wrong.
const ASKS: usize = 24;
/// Requests after all is well again.
const LAST_ASKS: usize = 4;

pub(super) fn draw(rng: &mut ChaCha8Rng, routers: usize) -> Vec<Ask> {
    let stems: Vec<Vec<TokenId>> = (0..3).map(|_| tokens(rng, 4..24)).collect();
    let well = CALM_AFTER + SETTLING;
    let mut asks = Vec::with_capacity(ASKS + LAST_ASKS);
    for number in 0..ASKS + LAST_ASKS {
        let span = if number < ASKS { 2_000..13_000 } else { 200..1_500 };
        let start = if number < ASKS { Duration::ZERO } else { well };
        asks.push(Ask {
            at: start + Duration::from_millis(rng.random_range(span)),
            router: rng.random_range(0..routers),
            patience: Duration::from_millis(rng.random_range(4_000..25_000)),
            generation: generation(rng, number, &stems),
        });
    }
    asks
}

fn generation(rng: &mut ChaCha8Rng, number: usize, stems: &[Vec<TokenId>]) -> Generation {
    let stem = &stems[rng.random_range(0..stems.len())];
    let prompt = [&stem[..], &tokens(rng, 1..20)].concat();
    let choices = if rng.random_bool(0.15) { vec![0, 1] } else { vec![0] };
    Generation {
        id: RequestId(format!("sim-{number}").into()),
        client: ClientId::default(),
        prompt: prompt.into(),
        generated: [].into(),
        choices,
        sampling: Sampling { seed: rng.random(), ..Sampling::default() },
        stop: StopRules {
            max_tokens: rng.random_range(1..40),
            ignore_eos: rng.random_bool(0.5),
            ..StopRules::default()
        },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
    }
}

fn tokens(rng: &mut ChaCha8Rng, count: std::ops::Range<usize>) -> Vec<TokenId> {
    (0..rng.random_range(count)).map(|_| rng.random_range(1..VOCAB)).collect()
}
