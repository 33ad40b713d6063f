//! Whole workloads, at random: whatever shares a batch, a cache and too little memory, each request
//! gets the tokens it would have got alone, and no block is lost.

use std::sync::Arc;

use kv_cache::TokenId;
use proptest::prelude::*;
use words::Generation;

use super::script::POISON;
use super::transcript::{Transcript, expected};
use super::{Bench, Sizes, some_prompt, work};
use crate::handle::Mode;

/// One request of a workload.
#[derive(Clone, Debug)]
struct Job {
    work: Arc<Generation>,
    kind: Kind,
    /// Steps the model makes before this one is submitted.
    wait_steps: u64,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Generate,
    /// The prompt first, then the rest over the same blocks.
    HandOff,
    /// Its reader leaves after some events.
    Cancel(usize),
}

fn any_job() -> impl Strategy<Value = Job> {
    // A few stems and short tails: many prompts share many blocks.
    let prompt = (0..3u32, 0..40usize, proptest::collection::vec(1..POISON, 0..6));
    let prompt = prompt.prop_map(|(stem, shared, tail)| {
        let stem = some_prompt(48).into_iter().map(|token| 1 + (token + stem) % (POISON - 1));
        let prompt: Vec<TokenId> = stem.take(shared).chain(tail).collect();
        if prompt.is_empty() { vec![1] } else { prompt }
    });
    let kind = prop_oneof![
        4 => Just(Kind::Generate),
        2 => Just(Kind::HandOff),
        1 => (0..12usize).prop_map(Kind::Cancel),
    ];
    let choices = prop_oneof![3 => Just(vec![0]), 1 => Just(vec![0, 1]), 1 => Just(vec![3, 1, 2])];
    let rules = (0..30u32, 0..4u32, any::<bool>(), proptest::option::weighted(0.2, 0..3u32));
    // Of what it comes to: most that come back had a part of it, and some all.
    let done = proptest::option::weighted(0.3, 0..=30usize);
    (prompt, kind, choices, rules, done, 0..2u64, 0..6u64).prop_map(
        |(prompt, kind, choices, rules, done, seed, wait_steps)| {
            let (max_tokens, min_tokens, ignore_eos, prompt_logprobs) = rules;
            let mut work = work(&prompt, max_tokens);
            work.stop.min_tokens = min_tokens;
            work.stop.ignore_eos = ignore_eos;
            work.sampling.seed = seed;
            work.choices = choices;
            work.prompt_logprobs = prompt_logprobs;
            if let Some(done) = done {
                work = come_back(work, done);
            }
            Job { work: Arc::new(work), kind, wait_steps }
        },
    )
}

fn any_sizes() -> impl Strategy<Value = Sizes> {
    // 80 tokens are the longest sequence, 20 blocks: from just that to plenty.
    let budgets = prop_oneof![Just(8u32), Just(16), Just(256)];
    let host_blocks = prop_oneof![Just(0u32), 1..60u32];
    (20..60u32, budgets, 3..8u32, any::<bool>(), any::<bool>(), host_blocks).prop_map(
        |(blocks, batch_tokens, sequences, prefix_cache, overlaps, host_blocks)| Sizes {
            host_blocks,
            blocks,
            batch_tokens,
            sequences,
            prefix_cache,
            overlaps,
            ..Sizes::default()
        },
    )
}

/// The same for one of its choices, with its first `done` tokens.
fn come_back(work: Generation, done: usize) -> Generation {
    let choices = work.choices[..1].to_vec();
    let (mut tokens, _) = expected(&work)[&choices[0]].clone();
    tokens.truncate(done);
    let prompt_logprobs = work.prompt_logprobs.filter(|_| tokens.is_empty());
    Generation { choices, generated: tokens.into(), prompt_logprobs, ..work }
}

async fn run(bench: Arc<Bench>, job: Job) -> Result<(), TestCaseError> {
    match job.kind {
        Kind::Generate => {
            let transcript = bench.generate(&job.work).await;
            prop_assert_eq!(transcript.answers, expected(&job.work));
            check_scores(&job.work, &transcript.scores)?;
        }
        Kind::HandOff => hand_off(&bench, &job.work).await?,
        Kind::Cancel(events) => {
            let mut stream = bench.submit(&job.work, Mode::Generate);
            for _ in 0..events {
                super::within(stream.recv()).await;
            }
        }
    }
    Ok(())
}

/// Computes the prompt, then goes on from it; together that is the whole answer.
async fn hand_off(bench: &Bench, work: &Arc<Generation>) -> Result<(), TestCaseError> {
    let prefill = Transcript::of(bench.submit(work, Mode::Prefill)).await;
    if bench.engine.end_of(work).is_some() {
        prop_assert_eq!(prefill.answers, expected(work));
        return Ok(());
    }
    check_scores(work, &prefill.scores)?;
    check_pages(bench, work, &prefill)?;
    let Some((table, first)) = prefill.prefilled else {
        return Err(TestCaseError::fail(format!("no result: {prefill:?}")));
    };
    let resumed = bench.submit(work, Mode::Resume { table, first: first.clone() });
    let decode = Transcript::of(resumed).await;
    let mut answers = decode.answers;
    for token in first {
        if let Some((tokens, _)) = answers.get_mut(&token.choice) {
            tokens.insert(0, token.token);
        }
        if let Some((tokens, _)) = prefill.answers.get(&token.choice) {
            prop_assert!(tokens.is_empty(), "a prefill sends no token but in its last event");
            prop_assert!(!answers.contains_key(&token.choice), "an end was told twice");
            answers.insert(token.choice, (vec![token.token], prefill.answers[&token.choice].1));
        }
    }
    for (choice, (_, reason)) in prefill.answers {
        answers.entry(choice).or_insert((vec![], reason));
    }
    prop_assert_eq!(answers, expected(work));
    Ok(())
}

/// Every page of the context is announced exactly once, before the result.
fn check_pages(
    bench: &Bench,
    work: &Generation,
    prefill: &Transcript,
) -> Result<(), TestCaseError> {
    let blocks = work.context_tokens().div_ceil(bench.engine.info().block_tokens as usize);
    for layer in 0..2u32 {
        let of_layer = prefill.pages.iter().filter(|pages| pages.layers.contains(&layer));
        let mut announced: Vec<u32> =
            of_layer.clone().flat_map(|pages| pages.blocks.clone()).collect();
        announced.sort_unstable();
        prop_assert_eq!(announced, (0..blocks as u32).collect::<Vec<_>>());
        prop_assert_eq!(of_layer.filter(|pages| pages.last_chunk).count(), 1);
    }
    Ok(())
}

fn check_scores(
    work: &Generation,
    scores: &[(u32, words::TokenLogprob)],
) -> Result<(), TestCaseError> {
    let wanted = if work.prompt_logprobs.is_some() { work.prompt.len() as u32 } else { 1 };
    let indices: Vec<u32> = scores.iter().map(|(index, _)| *index).collect();
    prop_assert_eq!(indices, (1..wanted).collect::<Vec<_>>());
    Ok(())
}

async fn run_all(sizes: Sizes, jobs: Vec<Job>) -> Result<(), TestCaseError> {
    let bench = Arc::new(Bench::new(sizes));
    let mut running = tokio::task::JoinSet::new();
    for job in jobs {
        let resume_at = bench.control.steps() + job.wait_steps;
        let is_idle = |bench: &Bench| bench.engine.stats().running == 0;
        while bench.control.steps() < resume_at && !is_idle(&bench) {
            tokio::task::yield_now().await;
        }
        running.spawn(run(Arc::clone(&bench), job));
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| TestCaseError::fail(error.to_string()))??;
    }
    bench.settle().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_request_gets_what_it_would_get_alone(
        sizes in any_sizes(),
        jobs in proptest::collection::vec(any_job(), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(run_all(sizes, jobs))?;
    }
}
