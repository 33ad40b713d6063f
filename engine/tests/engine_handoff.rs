//! The anchor: a prompt computed on one engine and continued on another gives the tokens of one.

#[path = "support/handoff.rs"]
mod handoff;
mod support;

use engine::Mode;
use rstest::rstest;
use words::{Generation, Sampling};

use handoff::{HandedOff, disaggregated, hand_off};
use support::{Answers, Sizes, assert_idle, prompt, seeded, start, start_reference, submit, work};

#[rstest]
#[case::one_token(1)]
#[case::a_block(16)]
#[case::a_block_and_one(17)]
#[case::many_chunks(130)]
#[tokio::test]
async fn two_engines_give_the_tokens_of_one(
    #[case] prompt_tokens: u32,
    #[values(Sampling::greedy(), seeded(77))] sampling: Sampling,
) {
    let work = work(&prompt(3, prompt_tokens), 40, sampling);
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let together = disaggregated(&prefill, &decode, &work).await;
    assert_eq!(together, support::generate(&start_reference(), &work).await);
    assert_eq!(decode.stats().prefill_tokens, 0, "nothing of the prompt was computed twice");
    assert_idle(&prefill).await;
    assert_idle(&decode).await;
}

#[tokio::test]
async fn choices_are_handed_off_together() {
    let mut work = work(&prompt(5, 50), 20, seeded(8));
    work.choices = vec![0, 1, 2];
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let together = disaggregated(&prefill, &decode, &work).await;
    assert_eq!(together, support::generate(&start_reference(), &work).await);
    assert_idle(&decode).await;
}

#[tokio::test]
async fn an_end_with_the_first_token_is_told_once_and_by_the_first() {
    let work = work(&prompt(5, 20), 1, Sampling::greedy());
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let handed = hand_off(&prefill, &decode, &work).await;
    assert_eq!(handed.ended.len(), 1);
    let mode = Mode::Resume { table: handed.table, first: handed.first };
    assert_eq!(support::answers(submit(&decode, &work, mode)).await, Answers::new());
    assert_idle(&decode).await;
}

/// Both sides have cached the conversation so far; only the rest is computed and copied.
#[tokio::test]
async fn a_second_turn_builds_on_the_cached_first() {
    let (prefill, decode) = (start(Sizes::default()), start(Sizes::default()));
    let first = work(&prompt(2, 70), 30, seeded(4));
    let (answer, _) = disaggregated(&prefill, &decode, &first).await[&0].clone();
    let second = work(&[&first.prompt[..], &answer, &prompt(9, 15)].concat(), 30, seeded(5));
    assert!(decode.cached_prefix(&second.prompt, &second.salt).tokens() > 70, "output is cached");
    let together = disaggregated(&prefill, &decode, &second).await;
    assert_eq!(together, support::generate(&start_reference(), &second).await);
    assert!(prefill.stats().cached_tokens >= 64);
    assert_idle(&prefill).await;
    assert_idle(&decode).await;
}

#[tokio::test]
async fn handed_off_sequences_that_are_preempted_are_computed_again() {
    let prefill = start(Sizes::default());
    let decode = start(Sizes { kv_blocks: 14, ..Sizes::default() });
    let reference = start_reference();
    let mut works: Vec<_> =
        (0..4).map(|seed| work(&prompt(seed, 40), 50, seeded(seed.into()))).collect();
    works.iter_mut().for_each(|work| work.stop.ignore_eos = true);
    // 12 of 14 blocks are taken when decoding begins; each sequence grows by three.
    let mut handed_off = Vec::new();
    for work in &works {
        handed_off.push(hand_off(&prefill, &decode, work).await);
    }
    let resume = |(work, HandedOff { table, first, .. }): (&Generation, HandedOff)| {
        (first.clone(), submit(&decode, work, Mode::Resume { table, first }))
    };
    let streams: Vec<_> = works.iter().zip(handed_off).map(resume).collect();
    for (work, (first, stream)) in works.iter().zip(streams) {
        let mut answers = support::answers(stream).await;
        answers.get_mut(&0).expect("an answer").0.insert(0, first[0].token);
        assert_eq!(answers, support::generate(&reference, work).await);
    }
    assert!(decode.stats().preemptions > 0, "memory was not short: {:?}", decode.stats());
    assert_idle(&decode).await;
}
