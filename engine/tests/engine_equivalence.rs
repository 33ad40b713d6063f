//! What a request gets doesn't depend on what else the engine does: a real model, token for token.

mod support;

use engine::{EngineHandle, Mode};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use words::{Generation, Sampling};

use support::{
    Answers, Sizes, answers, assert_idle, generate, prompt, seeded, start, start_reference, submit,
    work,
};

/// Requests of all kinds, some of which begin alike.
fn workload(seed: u64) -> Vec<Generation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..14u32)
        .map(|number| {
            let stem = prompt(number % 3, random.random_range(1..120));
            let tail = prompt(100 + number, random.random_range(0..20));
            let sampling =
                if random.random() { Sampling::greedy() } else { seeded(u64::from(number)) };
            let mut work = work(&[stem, tail].concat(), random.random_range(1..40), sampling);
            if random.random_ratio(1, 4) {
                work.choices = vec![0, 1, 2];
            }
            work
        })
        .collect()
}

async fn one_by_one(works: &[Generation]) -> Vec<Answers> {
    let reference = start_reference();
    let mut all = Vec::new();
    for work in works {
        all.push(generate(&reference, work).await);
    }
    all
}

/// Submits at random moments of the engine's work, and reads everything.
async fn all_at_once(engine: &EngineHandle, works: &[Generation], seed: u64) -> Vec<Answers> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut running = Vec::new();
    for work in works {
        let (wait, before) = (random.random_range(0..12), engine.stats().steps);
        while engine.stats().steps < before + wait && engine.stats().running > 0 {
            tokio::task::yield_now().await;
        }
        running.push(answers(submit(engine, work, Mode::Generate)));
    }
    futures_in_order(running).await
}

async fn futures_in_order(running: Vec<impl Future<Output = Answers>>) -> Vec<Answers> {
    let mut all = Vec::new();
    for answers in running {
        all.push(answers.await);
    }
    all
}

#[rstest]
#[case::chunks_of_a_block(32, true)]
#[case::chunks_of_four_blocks(80, true)]
#[case::whole_prompts(600, true)]
#[case::without_a_cache(80, false)]
#[tokio::test]
async fn a_mixed_batch_gives_what_each_gets_alone(
    #[case] batch_tokens_max: u32,
    #[case] prefix_cache: bool,
    #[values(1, 2)] seed: u64,
) {
    let works = workload(seed);
    let engine = start(Sizes { batch_tokens_max, prefix_cache, ..Sizes::default() });
    let together = all_at_once(&engine, &works, seed).await;
    for ((work, together), alone) in works.iter().zip(together).zip(one_by_one(&works).await) {
        assert_eq!(together, alone, "seed {seed}, {work:?}");
    }
    assert_idle(&engine).await;
}

#[tokio::test]
async fn preemption_changes_no_token() {
    let mut works: Vec<_> = (0..6)
        .map(|number| work(&prompt(number, 30 + number), 60, seeded(u64::from(number))))
        .collect();
    works.iter_mut().for_each(|work| work.stop.ignore_eos = true);
    // Each needs 6 blocks in the end; 14 hold the prompts of all, and the ends of two.
    let engine = start(Sizes { kv_blocks: 14, ..Sizes::default() });
    // Nothing starts before all are there: the first could have ended by then.
    let memory = engine.pool().reserve(14).expect("nobody has any yet");
    let running = works.iter().map(|work| answers(submit(&engine, work, Mode::Generate))).collect();
    drop(memory);
    let together = futures_in_order(running).await;
    assert_eq!(together, one_by_one(&works).await);
    assert!(engine.stats().preemptions > 0, "memory was not short: {:?}", engine.stats());
    assert_idle(&engine).await;
}

#[tokio::test]
async fn three_choices_are_three_requests() {
    let engine = start(Sizes::default());
    let mut three = work(&prompt(4, 37), 25, seeded(9));
    three.choices = vec![0, 1, 2];
    let together = generate(&engine, &three).await;
    for choice in 0..3 {
        let one = Generation { choices: vec![choice], ..three.clone() };
        assert_eq!(generate(&engine, &one).await[&choice], together[&choice]);
    }
    assert_ne!(together[&0].0, together[&1].0, "choices differ");
    assert_idle(&engine).await;
}

#[tokio::test]
async fn a_cached_prefix_gives_what_a_cold_one_gives() {
    let engine = start(Sizes::default());
    let work = work(&prompt(8, 100), 30, seeded(3));
    let cold = generate(&engine, &work).await;
    let steps = engine.stats().cached_tokens;
    assert_eq!(generate(&engine, &work).await, cold);
    assert_eq!(engine.stats().cached_tokens - steps, 96);
    assert_eq!(one_by_one(&[work]).await, [cold]);
    assert_idle(&engine).await;
}

#[tokio::test]
async fn a_request_goes_on_after_its_worker_died() {
    let engine = start(Sizes::default());
    let whole = work(&prompt(6, 45), 24, seeded(1));
    let (tokens, reason) = generate(&engine, &whole).await[&0].clone();
    for done in [1, 3, tokens.len() - 1] {
        let elsewhere = start(Sizes::default());
        let rest = Generation { generated: tokens[..done].into(), ..whole.clone() };
        let answer = generate(&elsewhere, &rest).await[&0].clone();
        assert_eq!(answer, (tokens[done..].to_vec(), reason), "after {done} tokens");
        assert_idle(&elsewhere).await;
    }
}
