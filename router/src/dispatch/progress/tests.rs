use rstest::rstest;
use words::{ClientId, RequestId, Sampling, StopRules, Targets, TenantSalt, TokenLogprob};

use super::*;

fn generation(choices: &[u32]) -> Generation {
    Generation {
        id: RequestId("r".into()),
        prompt: [1, 2, 3].into(),
        generated: [].into(),
        choices: choices.to_vec(),
        sampling: Sampling::greedy(),
        stop: StopRules { max_tokens: 10, ..StopRules::default() },
        prompt_logprobs: Some(1),
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    }
}

fn token(choice: u32, index: u32, token: TokenId) -> SampledToken {
    SampledToken { choice, index, token, logprob: None }
}

fn score(index: u32) -> PromptLogprob {
    PromptLogprob { index, logprob: TokenLogprob::default() }
}

#[rstest]
#[case::the_next(token(0, 2, 9), TokenCheck::Next)]
#[case::one_seen_before(token(0, 1, 8), TokenCheck::Twin)]
#[case::another_than_before(token(0, 1, 5), TokenCheck::Differs)]
#[case::one_too_far(token(0, 3, 9), TokenCheck::Gap)]
#[case::more_than_was_asked_for(token(1, 10, 9), TokenCheck::Excess)]
#[case::of_a_stranger(token(7, 0, 9), TokenCheck::Gap)]
fn a_token_is_delivered_only_as_the_next(
    #[case] arriving: SampledToken,
    #[case] check: TokenCheck,
) {
    let mut progress = Progress::new(&generation(&[0, 1]));
    progress.deliver(&token(0, 0, 7));
    progress.deliver(&token(0, 1, 8));
    (0..10).for_each(|index| assert_eq!(progress.deliver(&token(1, index, 3)), TokenCheck::Next));
    assert_eq!(progress.deliver(&arriving), check);
}

#[test]
fn a_lost_choice_resumes_with_its_tokens() {
    let whole = generation(&[0, 1]);
    let mut progress = Progress::new(&whole);
    progress.deliver(&token(1, 0, 4));
    progress.deliver(&token(1, 1, 5));
    let left = progress.remaining(&whole, &[1]).unwrap();
    assert_eq!((&left.choices[..], &left.generated[..]), (&[1][..], &[4, 5][..]));
}

#[test]
fn what_has_ended_is_not_resumed() {
    let whole = generation(&[0, 1]);
    let mut progress = Progress::new(&whole);
    assert_eq!(progress.finish(0, FinishReason::Length), Ok(true));
    assert_eq!(progress.finish(0, FinishReason::Length), Ok(false));
    assert_eq!(progress.remaining(&whole, &[0, 1]).unwrap().choices, [1]);
    progress.finish(1, FinishReason::Length).expect("nothing is missing");
    assert_eq!(progress.remaining(&whole, &[0, 1]), None);
}

#[test]
fn the_prompt_is_scored_once() {
    let whole = generation(&[0]);
    let mut progress = Progress::new(&whole);
    let scores = |indices: std::ops::Range<u32>| {
        let score =
            |index| PromptLogprob { index, logprob: TokenLogprob { logprob: -1.0, top: vec![] } };
        indices.map(score).collect::<Vec<_>>()
    };
    let left = |progress: &Progress| progress.remaining(&whole, &[0]).unwrap().prompt_logprobs;
    // In parts, from the beginning again after a failure, and to the end.
    assert_eq!(progress.score(scores(1..2)), Ok(scores(1..2)));
    assert_eq!(left(&progress), whole.prompt_logprobs);
    assert_eq!(progress.score(scores(1..3)), Ok(scores(2..3)));
    assert_eq!(progress.score(scores(1..3)), Ok(vec![]));
    assert_eq!(left(&progress), None);
}

#[test]
fn a_missing_score_is_noticed() {
    let mut progress = Progress::new(&generation(&[0]));
    assert_eq!(progress.score(vec![score(2)]), Err(Gap));
}

#[test]
fn an_end_without_its_token_is_noticed() {
    let mut progress = Progress::new(&generation(&[0]));
    progress.deliver(&token(0, 0, 7));
    assert_eq!(progress.finish(0, FinishReason::Stop(8)), Err(Gap));
    progress.deliver(&token(0, 1, 8));
    assert_eq!(progress.finish(0, FinishReason::Stop(8)), Ok(true));
}

#[test]
fn a_resumed_request_counts_from_what_it_came_with() {
    let whole = Generation { generated: [6, 6].into(), ..generation(&[3]) };
    let mut progress = Progress::new(&whole);
    assert_eq!(progress.deliver(&token(3, 2, 1)), TokenCheck::Next);
}

#[test]
fn there_are_no_scores_beyond_the_prompt_nor_any_that_nobody_wants() {
    let mut progress = Progress::new(&generation(&[0]));
    assert_eq!(progress.score(vec![score(1), score(2)]).map(|new| new.len()), Ok(2));
    assert_eq!(progress.score(vec![score(3)]), Err(Gap));
    let unasked = Generation { prompt_logprobs: None, ..generation(&[0]) };
    assert_eq!(Progress::new(&unasked).score(vec![score(1)]), Err(Gap));
}
