//! What reaches a node is what another has sent, or it is nothing: real workers and the real dispatcher,
//! with a hop between each two that damages messages.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

mod hop;
mod house;

use std::time::Duration;

use baton_tests::wait_until;
use cluster::ErrorCode;
use kv_transfer::transport::Faults;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;
use words::{FinishReason, Generation};

use self::hop::{Harm, Place, Plan};
use self::house::{Answer, EOS, House, some_work};

/// Requests that are damaged.
const ROUNDS: usize = 200;

fn some_plan(random: &mut ChaCha8Rng) -> Plan {
    let places = [Place::Generate, Place::GenerateAnswer, Place::Prefill, Place::PrefillAnswer];
    let place = places[random.random_range(0..places.len())];
    let bit = random.random_range(0..usize::MAX);
    // Of a single message only bits can be wrong.
    let is_stream = matches!(place, Place::GenerateAnswer | Place::PrefillAnswer);
    let harm = match random.random_range(0..10) {
        0 if is_stream => Harm::Drop,
        1 if is_stream => Harm::Double,
        2 if is_stream => Harm::Cut,
        _ => Harm::Flip(bit),
    };
    let skip = if is_stream { random.random_range(0..3) } else { 0 };
    Plan { place, skip, harm }
}

/// The answer is the right one, and so is the next to the same request: nothing wrong was kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_message_never_makes_a_wrong_answer() {
    let house = House::start().await;
    let seed = 4;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut failed = 0;
    for round in 0..ROUNDS {
        let work = some_work(round, &mut random);
        let want = house.reference(&work).await;
        let plan = some_plan(&mut random);
        house.damage.plan(plan);
        match house.answer(&work).await {
            Ok(answer) => assert_eq!(answer, want, "seed {seed}, round {round}: {plan:?}"),
            Err(error) => {
                assert!(error.code.retryable(), "seed {seed}, round {round}: {plan:?}: {error:?}");
                failed += 1;
            }
        }
        house.damage.heal();
        let again = house.answer(&work).await.expect("an answer without damage");
        assert_eq!(again, want, "seed {seed}, round {round}, after {plan:?}");
    }
    assert!(house.damage.hits() > ROUNDS / 2, "{} of {ROUNDS} were damaged", house.damage.hits());
    assert_eq!(failed, 0, "requests that no retry saved");
    house.end().await;
}

/// Where the first choice of a request ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// With all tokens that were wanted.
    Length,
    /// With its token of this number, counted from 1.
    Stop(usize),
    /// With the model's own end.
    Eos,
}

// === impl End ===

impl End {
    /// Has `work`, which comes to `answer`, end there; why it will.
    fn set(self, work: &mut Generation, answer: &Answer) -> FinishReason {
        match self {
            Self::Length => {
                work.stop.ignore_eos = true;
                FinishReason::Length
            }
            Self::Stop(count) => {
                let token = answer.0[&0].tokens[count - 1].token;
                work.stop.stop_token_ids = vec![token];
                FinishReason::Stop(token)
            }
            Self::Eos => {
                work.sampling.logit_bias.push((EOS, 100.0));
                work.stop.min_tokens = 2;
                FinishReason::Stop(EOS)
            }
        }
    }
}

/// What was told before is not told again, nothing follows an end, and nobody waits for one in vain.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_same_wherever_it_was_cut(
    #[values(End::Length, End::Stop(3), End::Stop(5), End::Eos)] end: End,
    #[values(1, 3)] choices: u32,
    #[values(Place::GenerateAnswer, Place::PrefillAnswer)] place: Place,
) {
    let house = House::start().await;
    let mut work = some_work(0, &mut ChaCha8Rng::seed_from_u64(1));
    work.choices = (0..choices).collect();
    work.stop.stop_token_ids.clear();
    let endless = house.reference(&work).await;
    let reason = end.set(&mut work, &endless);
    let want = house.reference(&work).await;
    assert_eq!(want.0[&0].finished, Some(reason), "{want:?}");
    for skip in 0.. {
        let hits = house.damage.hits();
        house.damage.plan(Plan { place, skip, harm: Harm::Cut });
        let answer = house.answer(&work).await.expect("an answer from another worker");
        assert_eq!(answer, want, "cut behind {skip} messages");
        if house.damage.hits() == hits {
            break;
        }
    }
    house.end().await;
}

/// From the prefill worker's clock by its load reports to the router's cost model.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_hand_off_costs_is_learned_from_those_that_were_sent() {
    let delay_time = Duration::from_millis(300);
    let house = House::start_with(Faults { delay: 1.0, delay_time, ..Faults::default() }).await;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let work = some_work(0, &mut random);
    assert!(house.handoff_s(&work) < 0.01, "it is assumed to be cheap");
    for number in 0..3 {
        house.answer(&some_work(number, &mut random)).await.expect("an answer");
    }
    wait_until("what was measured is expected", Duration::from_secs(10), || async {
        let expected_s = house.handoff_s(&work);
        if expected_s > 0.2 { Ok(()) } else { Err(format!("{expected_s} s are expected")) }
    })
    .await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_explained_with_all_candidates_to_whoever_asks() {
    let house = House::start().await;
    let told = house.explained(some_work(0, &mut ChaCha8Rng::seed_from_u64(1))).await;
    let mut parts = told.split("; ");
    let choice = parts.next().expect("a choice");
    assert!(
        choice.starts_with("p0 -> d") && choice.contains(" (handoff-policy): queue "),
        "{told}"
    );
    let mut candidates: Vec<_> = parts.filter_map(|part| part.split_once(": queue ")).collect();
    candidates.sort_unstable();
    let names: Vec<_> = candidates.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["d0 decode", "d1 decode", "p0 prefill"], "{told}");
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_too_large_is_a_broken_reply() {
    let house = House::start().await;
    let work = some_work(0, &mut ChaCha8Rng::seed_from_u64(1));
    house.damage.plan(Plan { place: Place::GenerateAnswer, skip: 1, harm: Harm::Swell });
    let answer = house.answer(&work).await.expect("an answer from another worker");
    assert_eq!(answer, house.reference(&work).await);
    assert_eq!((house.damage.hits(), house.damage.calls()), (1, 2));
    house.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_miscomputes_is_tried_elsewhere_once() {
    let house = House::start().await;
    let work = some_work(0, &mut ChaCha8Rng::seed_from_u64(1));
    house.damage.refuse(ErrorCode::Miscomputed, 1);
    let answer = house.answer(&work).await.expect("an answer from another worker");
    assert_eq!(answer, house.reference(&work).await);
    assert_eq!(house.damage.calls(), 2);

    house.damage.refuse(ErrorCode::Miscomputed, usize::MAX);
    let error = house.answer(&work).await.expect_err("nobody can compute it");
    assert_eq!((error.code, house.damage.calls()), (ErrorCode::Miscomputed, 2 + 2));
    assert_eq!(error.code.http().as_u16(), 500);
    house.end().await;
}
