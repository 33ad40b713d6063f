use std::time::Duration;

use rstest::rstest;
use words::{
    ClientId, FinishReason, Generation, RequestId, Sampling, StopRules, Targets, TenantSalt,
};

use crate::seal::Sealed as _;
use crate::v1;

fn generation() -> Generation {
    Generation {
        id: RequestId("req-1".into()),
        prompt: [1, 2, 3].into(),
        generated: [9].into(),
        choices: vec![2],
        sampling: Sampling { seed: 7, logit_bias: vec![(5, -1.5)], ..Sampling::default() },
        stop: StopRules { max_tokens: 8, min_tokens: 2, stop_token_ids: vec![4], ignore_eos: true },
        prompt_logprobs: Some(3),
        salt: TenantSalt([1, 2].into()),
        client: ClientId(7),
        targets: Targets { itl: Some(Duration::from_micros(1)), ..Targets::default() },
    }
}

#[test]
fn a_generation_survives_the_wire() {
    let wire = v1::Generation::from(&generation());
    assert_eq!(Generation::try_from(wire), Ok(generation()));
}

#[rstest]
#[case::no_prompt(|g: &mut v1::Generation| g.prompt.clear(), "prompt")]
#[case::no_choice(|g: &mut v1::Generation| g.choices.clear(), "choices")]
#[case::too_many_choices(|g: &mut v1::Generation| g.choices = (0..1000).collect(), "choices")]
#[case::resumed_twice(|g: &mut v1::Generation| g.choices = vec![0, 1], "generated")]
#[case::no_sampling(|g: &mut v1::Generation| g.sampling = None, "sampling")]
#[case::no_stop(|g: &mut v1::Generation| g.stop = None, "stop")]
#[case::too_many_stops(|g: &mut v1::Generation| g.stop.as_mut().unwrap().stop_token_ids = vec![1; 2000], "stop_token_ids")]
#[case::no_id(|g: &mut v1::Generation| g.request_id.clear(), "request_id")]
#[case::negative_temperature(|g: &mut v1::Generation| sampling(g).temperature = -1.0, "temperature")]
#[case::nan_temperature(|g: &mut v1::Generation| sampling(g).temperature = f32::NAN, "temperature")]
#[case::top_p_above_one(|g: &mut v1::Generation| sampling(g).top_p = 1.5, "top_p")]
#[case::zero_repetition(|g: &mut v1::Generation| sampling(g).repetition_penalty = 0.0, "repetition_penalty")]
#[case::infinite_bias(|g: &mut v1::Generation| sampling(g).logit_bias[0].bias = f32::INFINITY, "logit_bias")]
fn a_bad_generation_is_refused_by_field(
    #[case] spoil: fn(&mut v1::Generation),
    #[case] field: &str,
) {
    let mut wire = v1::Generation::from(&generation());
    spoil(&mut wire);
    // Sealed as it is: the sender's own fault.
    let wire = wire.sealed(0);
    assert_eq!(Generation::try_from(wire).unwrap_err().field, field);
}

fn sampling(generation: &mut v1::Generation) -> &mut v1::Sampling {
    generation.sampling.as_mut().unwrap()
}

#[rstest]
#[case(FinishReason::Stop(3))]
#[case(FinishReason::Length)]
fn a_finish_reason_survives_the_wire(#[case] reason: FinishReason) {
    assert_eq!(v1::Finished::new(1, reason).reason(), Ok(reason));
}
