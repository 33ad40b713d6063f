use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// A request around `sampling`, with no history.
fn row(sampling: &Sampling) -> SampleRow<'_> {
    SampleRow { row: 0, sampling, choice: 0, index: 0, prompt: &[], output: &[], banned: &[] }
}

fn pick(logits: &[f32], row: &SampleRow<'_>) -> TokenId {
    sample(logits, row).unwrap().token
}

/// How often each token is drawn over `draws` indices.
fn histogram(logits: &[f32], sampling: &Sampling, draws: u32) -> Vec<u32> {
    let mut counts = vec![0; logits.len()];
    for index in 0..draws {
        counts[pick(logits, &SampleRow { index, ..row(sampling) }) as usize] += 1;
    }
    counts
}

fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let weights: Vec<f64> = logits.iter().map(|&x| f64::from(x / temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Pearson's statistic of counts against probabilities.
fn chi_square(counts: &[u32], probabilities: &[f64]) -> f64 {
    let draws: f64 = counts.iter().map(|&count| f64::from(count)).sum();
    let terms = counts.iter().zip(probabilities).filter(|(_, p)| **p > 0.0).map(|(&count, &p)| {
        let want = p * draws;
        (f64::from(count) - want).powi(2) / want
    });
    terms.sum()
}

#[rstest]
#[case::plain(&[0.1, 2.0, 1.0], 1)]
#[case::lowest_id_of_equals(&[1.0, 3.0, 3.0, 3.0], 1)]
#[case::all_equal(&[5.0; 4], 0)]
#[case::beside_minus_infinity(&[f32::NEG_INFINITY, -1e30], 1)]
fn greedy_takes_the_likeliest(#[case] logits: &[f32], #[case] want: TokenId) {
    assert_eq!(pick(logits, &row(&Sampling::greedy())), want);
}

#[rstest]
#[case::temperature_1(1.0)]
#[case::cold(0.5)]
#[case::hot(3.0)]
fn draws_follow_the_softmax(#[case] temperature: f32) {
    let logits = [0.3, -1.0, 2.0, 0.0, 1.1, -0.4, 0.9, -2.0];
    for seed in [1, 2, 3] {
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let counts = histogram(&logits, &sampling, 20_000);
        // With 7 degrees of freedom, 24.3 is exceeded once in a thousand times.
        let statistic = chi_square(&counts, &softmax(&logits, temperature));
        assert!(statistic < 24.3, "seed {seed}: {statistic}, {counts:?}");
    }
}

#[test]
fn draws_over_a_large_vocabulary_are_not_pruned_wrongly() {
    // One token has half of the probability, 8192 share the rest: the skipping of hopeless tokens
    // must not skip these.
    let mut logits = vec![0.0; 8193];
    logits[0] = 8192f32.ln();
    let counts = histogram(&logits, &Sampling { seed: 11, ..Sampling::default() }, 2_000);
    let share = f64::from(counts[0]) / 2_000.0;
    assert!((share - 0.5).abs() < 0.04, "{share}");
    let quarters: Vec<u32> = counts[1..].chunks(2048).map(|quarter| quarter.iter().sum()).collect();
    assert!(chi_square(&quarters, &[0.25; 4]) < 16.3, "{quarters:?}");
}

#[test]
fn pruning_never_changes_the_draw() {
    let noise_logits: Vec<f32> = (0..500)
        .map(|i| -30.0 * Philox::new(5).block([i, 0, 0, 0])[0] as f32 / u32::MAX as f32)
        .collect();
    let best = argmax(&noise_logits).unwrap();
    let scaled: Vec<f32> = noise_logits.iter().map(|x| x - noise_logits[best as usize]).collect();
    for index in 0..300 {
        let sampling = Sampling::default();
        let noise = Noise::new(&SampleRow { index, ..row(&sampling) });
        let scores: Vec<f32> = (0..500).map(|t| scaled[t as usize] + noise.at(t)).collect();
        assert_eq!(noise.draw(&scaled, f32::NEG_INFINITY, best), argmax(&scores).unwrap());
    }
}

#[test]
fn a_draw_is_a_function_of_seed_choice_and_index() {
    let logits = vec![0.0; 64];
    let draw = |seed, choice, index| {
        let sampling = Sampling { seed, ..Sampling::default() };
        pick(&logits, &SampleRow { choice, index, ..row(&sampling) })
    };
    let stream = |seed, choice| (0..24).map(|index| draw(seed, choice, index)).collect::<Vec<_>>();
    assert_eq!(stream(1, 0), stream(1, 0));
    assert_ne!(stream(1, 0), stream(2, 0));
    assert_ne!(stream(1, 0), stream(1, 1));
    assert!(stream(1, 0).iter().collect::<BTreeSet<_>>().len() > 12, "indices must differ too");
    // High bits of the seed count.
    assert_ne!(stream(1, 0), stream(1 | 1 << 40, 0));
}

#[test]
fn noise_is_gumbel_at_its_ends() {
    let sampling = Sampling::default();
    let noise = Noise::new(&row(&sampling));
    let values: Vec<f32> = (0..200_000).map(|token| noise.at(token)).collect();
    assert!(values.iter().all(|x| x.is_finite() && *x < NOISE_MAX));
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len() as f64;
    assert!((mean - 0.5772).abs() < 0.01, "Euler's constant, not {mean}");
    // P(noise > 8) = 1 - exp(-exp(-8)) = 3.35e-4.
    let high = values.iter().filter(|x| **x > 8.0).count();
    assert!((40..95).contains(&high), "{high} of 67");
}

/// The history that the penalties below see: 1 in the prompt; 2 once, 3 three times in the output.
fn penalized(sampling: &Sampling, logits: &[f32]) -> Vec<f32> {
    let mut logits = logits.to_vec();
    let history = SampleRow { prompt: &[1, 1], output: &[3, 2, 3, 3], ..row(sampling) };
    penalize(&mut logits, &history);
    logits
}

#[rstest]
#[case::repetition_divides_positive_and_multiplies_negative(
    Sampling { repetition_penalty: 2.0, ..Sampling::default() },
    &[4.0, 2.0, -8.0, 0.0]
)]
#[case::frequency_counts_the_output(
    Sampling { frequency_penalty: 0.5, ..Sampling::default() },
    &[4.0, 4.0, -4.5, -1.5]
)]
#[case::presence_counts_once(
    Sampling { presence_penalty: 0.5, ..Sampling::default() },
    &[4.0, 4.0, -4.5, -0.5]
)]
#[case::repetition_comes_first(
    Sampling { repetition_penalty: 2.0, presence_penalty: 1.0, ..Sampling::default() },
    &[4.0, 2.0, -9.0, -1.0]
)]
#[case::bias_is_added_and_foreign_tokens_ignored(
    Sampling { logit_bias: vec![(0, -3.0), (2, 1.0), (2, 1.0), (99, 5.0)], ..Sampling::default() },
    &[1.0, 4.0, -2.0, 0.0]
)]
fn penalties(#[case] sampling: Sampling, #[case] want: &[f32]) {
    assert_eq!(penalized(&sampling, &[4.0, 4.0, -4.0, 0.0]), want);
}

#[test]
fn banned_tokens_are_never_chosen_not_even_with_a_bias() {
    let sampling = Sampling { logit_bias: vec![(1, 100.0)], ..Sampling::default() };
    for temperature in [0.0, 1.0] {
        let sampling = Sampling { temperature, ..sampling.clone() };
        for index in 0..50 {
            let request = SampleRow { banned: &[1, 77], index, ..row(&sampling) };
            assert_ne!(pick(&[0.0, 9.0, 1.0], &request), 1);
        }
    }
}

#[rstest]
#[case::nan(&[1.0, f32::NAN], &[], LogitsFault::NotFinite)]
#[case::infinity(&[1.0, f32::INFINITY], &[], LogitsFault::NotFinite)]
#[case::nothing_likely(&[f32::NEG_INFINITY; 2], &[], LogitsFault::NotFinite)]
#[case::nothing_likely_is_left(&[f32::NEG_INFINITY, 1.0], &[1], LogitsFault::NoCandidate)]
#[case::all_banned(&[1.0, 2.0], &[0, 1], LogitsFault::NoCandidate)]
fn no_token_is_an_error(
    #[case] logits: &[f32],
    #[case] banned: &[TokenId],
    #[case] want: LogitsFault,
    #[values(0.0, 1.0)] temperature: f32,
) {
    let sampling = Sampling { temperature, ..Sampling::default() };
    let fault = sample(logits, &SampleRow { banned, ..row(&sampling) }).unwrap_err();
    assert_eq!(fault, want);
}

#[rstest]
#[case::tiny_temperature(1e-38)]
#[case::huge_temperature(1e30)]
fn extreme_temperatures_choose_something(#[case] temperature: f32) {
    let sampling = Sampling { temperature, top_p: 0.9, ..Sampling::default() };
    let token = pick(&[1e4, -1e4, 0.0], &row(&sampling));
    assert!(temperature > 1.0 || token == 0);
}

#[test]
fn logprobs_are_of_the_raw_distribution_best_first() {
    let sampling = Sampling {
        temperature: 0.0,
        logprobs: Some(3),
        logit_bias: vec![(3, 100.0)],
        ..Sampling::default()
    };
    let logits = [1.0, 2.0, 2.0, 0.0];
    let sampled = sample(&logits, &row(&sampling)).unwrap();
    assert_eq!(sampled.token, 3);
    let logprob = sampled.logprob.unwrap();
    let want: Vec<f64> = softmax(&logits, 1.0).into_iter().map(f64::ln).collect();
    assert!((f64::from(logprob.logprob) - want[3]).abs() < 1e-6);
    let tokens: Vec<TokenId> = logprob.top.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [1, 2, 0]);
    for (token, logprob) in logprob.top {
        assert!((f64::from(logprob) - want[token as usize]).abs() < 1e-6);
    }
}

#[test]
fn scores_name_the_given_token_whatever_is_likeliest() {
    let logits = [0.0, 5.0];
    let given = score(&logits, &ScoreRow { row: 0, next: 0, top: 9 }).unwrap();
    assert!((given.logprob + 5.006_715).abs() < 1e-5, "{}", given.logprob);
    assert_eq!(given.top.len(), 2, "no more alternatives than tokens");
    assert_eq!(
        score(&[f32::NAN], &ScoreRow { row: 0, next: 0, top: 0 }),
        Err(LogitsFault::NotFinite)
    );
}

/// The tokens that pass all filters, by sorting everything: the definition, plainly.
fn kept_by_sorting(logits: &[f32], sampling: &Sampling) -> BTreeSet<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let with_equals = |count: usize, order: &[usize]| -> Vec<usize> {
        let last = logits[order[count - 1]];
        order.iter().copied().filter(|&token| logits[token] >= last).collect()
    };
    if sampling.top_k > 0 {
        order = with_equals((sampling.top_k as usize).min(order.len()), &order);
    }
    if sampling.top_p < 1.0 {
        let weight = |token: usize| f64::from(logits[token]).exp();
        let total: f64 = order.iter().map(|&token| weight(token)).sum();
        let mut sum = 0.0;
        let reached = order.iter().position(|&token| {
            sum += weight(token);
            sum >= f64::from(sampling.top_p) * total
        });
        order = with_equals(reached.map_or(order.len(), |last| last + 1), &order);
    }
    let least = f64::from(sampling.min_p).ln();
    order.into_iter().filter(|&token| f64::from(logits[token]) >= least - 1e-6).collect()
}

/// Logits as the filters see them: the likeliest is 0. Coarse values make ties.
fn scaled_logits() -> impl Strategy<Value = Vec<f32>> {
    let coarse = (-40..=0i32).prop_map(|x| x as f32 * 0.25);
    let fine = (-12.0..0.0f32).prop_map(|x| x);
    prop_oneof![proptest::collection::vec(coarse, 1..400), proptest::collection::vec(fine, 1..400)]
        .prop_map(|mut logits| {
            logits[0] = 0.0;
            logits
        })
}

proptest! {
    #[test]
    fn the_threshold_keeps_what_sorting_keeps(
        logits in scaled_logits(),
        top_k in prop_oneof![Just(0u32), 1..500u32],
        top_p in prop_oneof![Just(1.0f32), 0.0..1.0f32],
        min_p in prop_oneof![Just(0.0f32), 0.001..1.0f32],
    ) {
        let sampling = Sampling { top_k, top_p, min_p, ..Sampling::default() };
        let threshold = filter::threshold(&logits, &sampling);
        let kept: BTreeSet<usize> =
            (0..logits.len()).filter(|&token| logits[token] >= threshold).collect();
        let want = kept_by_sorting(&logits, &sampling);
        // A logit within rounding of min_p's edge may fall on either side.
        let edge = f64::from(min_p).ln();
        let near = |token: &usize| (f64::from(logits[*token]) - edge).abs() < 1e-5;
        prop_assert!(kept.symmetric_difference(&want).all(near), "{kept:?} for {want:?}");
        prop_assert!(kept.contains(&0), "the likeliest always passes");
    }

    #[test]
    fn only_kept_tokens_are_drawn(logits in scaled_logits(), top_k in 1..5u32, seed: u64) {
        let sampling = Sampling { top_k, seed, ..Sampling::default() };
        let kept = kept_by_sorting(&logits, &sampling);
        for index in 0..20 {
            let token = pick(&logits, &SampleRow { index, ..row(&sampling) });
            prop_assert!(kept.contains(&(token as usize)));
        }
    }

    #[test]
    fn the_likeliest_are_those_of_a_sort(logits in scaled_logits(), count in 0usize..500) {
        let mut order: Vec<TokenId> = (0..logits.len() as TokenId).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        order.truncate(count);
        prop_assert_eq!(filter::likeliest(&logits, count), order);
    }
}
