//! Where sequences end, also those that come with tokens.

use std::sync::Arc;

use rstest::rstest;
use words::{FinishReason, Generation, StopRules};

use super::script::EOS;
use super::transcript::{Transcript, expected};
use super::{Bench, Sizes, some_prompt, work};
use crate::handle::Mode;

#[rstest]
#[case::max_tokens_one(|stop: &mut StopRules| stop.max_tokens = 1)]
#[case::nothing_at_all(|stop: &mut StopRules| stop.max_tokens = 0)]
#[case::eos(|stop: &mut StopRules| stop.ignore_eos = false)]
#[case::stop_tokens(|stop: &mut StopRules| stop.stop_token_ids = (1..20).collect())]
#[case::not_before_min_tokens(|stop: &mut StopRules| {
    stop.stop_token_ids = (1..20).collect();
    stop.min_tokens = 7;
})]
#[tokio::test]
async fn sequences_end_where_the_rules_say(#[case] set: fn(&mut StopRules)) {
    let bench = Bench::new(Sizes::default());
    let mut work = work(&some_prompt(6), 150);
    set(&mut work.stop);
    let work = Arc::new(work);
    let transcript = bench.generate(&work).await;
    assert_eq!(transcript.answers, expected(&work));
    let tokens = &transcript.answers[&0].0;
    assert!(tokens.len() >= work.stop.min_tokens.min(work.stop.max_tokens) as usize);
    bench.settle().await;
}

#[tokio::test]
async fn a_sequence_ends_where_memory_does() {
    let bench = Bench::new(Sizes { blocks: 5, ..Sizes::default() });
    let transcript = bench.generate(&Arc::new(work(&some_prompt(6), 1000))).await;
    let (tokens, reason) = &transcript.answers[&0];
    assert_eq!((tokens.len(), *reason), (14, FinishReason::Length));
    bench.settle().await;
}

#[tokio::test]
async fn generated_tokens_are_gone_on_from() {
    let bench = Bench::new(Sizes::default());
    let mut whole = work(&some_prompt(9), 25);
    whole.stop.ignore_eos = false;
    let (tokens, reason) = expected(&whole)[&0].clone();
    for done in 1..=tokens.len() {
        let rest = Generation { generated: tokens[..done].into(), ..whole.clone() };
        let transcript = bench.generate(&Arc::new(rest)).await;
        assert_eq!(transcript.answers[&0], (tokens[done..].to_vec(), reason), "after {done}");
        assert!(
            transcript.indices.iter().eq(&(done as u32..tokens.len() as u32).collect::<Vec<_>>())
        );
    }
    bench.settle().await;
}

/// Its last worker was lost before anybody heard of the end: nothing may follow, whoever is asked.
#[rstest]
#[case::eos(|work: &mut Generation| {
    work.stop.ignore_eos = false;
    work.generated = Arc::new([3, EOS]);
}, FinishReason::Stop(EOS))]
#[case::a_stop_token(|work: &mut Generation| {
    work.stop.stop_token_ids = vec![7];
    work.generated = Arc::new([3, 7]);
}, FinishReason::Stop(7))]
#[case::all_that_was_wanted(|work: &mut Generation| {
    work.stop.max_tokens = 2;
    work.generated = Arc::new([3, 7]);
}, FinishReason::Length)]
#[case::all_that_was_wanted_and_a_stop_token(|work: &mut Generation| {
    work.stop = StopRules { max_tokens: 2, stop_token_ids: vec![7], ..work.stop.clone() };
    work.generated = Arc::new([3, 7]);
}, FinishReason::Stop(7))]
#[case::a_full_context(|work: &mut Generation| {
    work.prompt = some_prompt(250).into();
    work.generated = Arc::new([3; 6]);
}, FinishReason::Length)]
#[tokio::test]
async fn what_comes_with_its_end_is_told_it_and_nothing_else(
    #[case] set: fn(&mut Generation),
    #[case] reason: FinishReason,
) {
    let bench = Bench::new(Sizes::default());
    let mut work = Generation { choices: vec![2], ..work(&some_prompt(9), 25) };
    set(&mut work);
    let work = Arc::new(work);
    assert_eq!(bench.engine.end_of(&work), Some(reason));
    for mode in [Mode::Generate, Mode::Prefill] {
        let transcript = Transcript::of(bench.submit(&work, mode)).await;
        assert_eq!(transcript.answers[&2], (vec![], reason));
        let prefilled = transcript.prefilled;
        assert!(prefilled.is_none_or(|(table, first)| table.tokens() == 0 && first.is_empty()));
    }
    assert_eq!((bench.control.steps(), bench.engine.stats().finished), (0, 2));
    bench.settle().await;
}

#[rstest]
#[case::nothing_generated(|work: &mut Generation| work.stop.max_tokens = 0)]
#[case::past_an_eos_that_is_ignored(|work: &mut Generation| work.generated = Arc::new([3, EOS]))]
#[case::before_the_fewest(|work: &mut Generation| {
    work.stop = StopRules { min_tokens: 2, ignore_eos: false, ..work.stop.clone() };
    work.generated = Arc::new([3, EOS]);
})]
#[tokio::test]
async fn what_has_not_ended_is_gone_on_with(#[case] set: fn(&mut Generation)) {
    let bench = Bench::new(Sizes::default());
    let mut work = work(&some_prompt(9), 25);
    set(&mut work);
    let work = Arc::new(work);
    assert_eq!(bench.engine.end_of(&work), None);
    assert_eq!(bench.generate(&work).await.answers, expected(&work));
    bench.settle().await;
}
