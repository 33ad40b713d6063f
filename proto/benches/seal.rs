//! What seals cost, on each side and each hop.
//!
//! - A prompt's token: encoded once more (a varint, some 3 ns) and hashed (0.1 ns). It may take 20 ns.
//! - A streamed message: a small encoding, a small hash. It may take 1 us.

#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proto::v1::generate_response::{Event, Tokens};
use proto::{SealChain, Sealed as _, v1};
use words::{
    ClientId, Generation, RequestId, SampledToken, Sampling, StopRules, Targets, TenantSalt,
    TokenLogprob,
};

fn generation(tokens: u32) -> Generation {
    Generation {
        id: RequestId("0199c0ffee0199c0ffee0199c0ffee00".into()),
        prompt: (0..tokens).map(|token| token * 7919 % 150_000).collect(),
        generated: [].into(),
        choices: vec![0],
        sampling: Sampling::default(),
        stop: StopRules { max_tokens: 100, ..StopRules::default() },
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    }
}

/// A step's token, with as many alternatives as are asked for.
fn message(alternatives: u32) -> v1::GenerateResponse {
    let logprob = TokenLogprob {
        logprob: -0.25,
        top: (0..alternatives).map(|token| (token * 7919, -1.5)).collect(),
    };
    let logprob = (alternatives > 0).then_some(logprob);
    let token = SampledToken { choice: 0, index: 300, token: 70_000, logprob };
    let tokens = Tokens { tokens: vec![(&token).into()] };
    v1::GenerateResponse { event: Some(Event::Tokens(tokens)), seal: 0 }
}

fn prompts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check a prompt, by token");
    for tokens in [100, 1000, 10_000, 100_000] {
        let mut wire = v1::Generation::from(&generation(tokens));
        group.throughput(Throughput::Elements(tokens.into()));
        group.bench_with_input(BenchmarkId::from_parameter(tokens), &tokens, |bench, _| {
            bench.iter(|| black_box(&mut wire).check_seal(0));
        });
    }
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check a streamed message");
    for alternatives in [0, 1, 20] {
        let mut wire = SealChain::after(1).seal(message(alternatives));
        let named = BenchmarkId::new("alternatives", alternatives);
        group.bench_with_input(named, &alternatives, |bench, _| {
            bench.iter(|| SealChain::after(1).check(black_box(&mut wire)));
        });
    }
}

criterion_group!(benches, prompts, messages);
criterion_main!(benches);
