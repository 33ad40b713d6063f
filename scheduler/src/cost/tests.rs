use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn report(running: u32, prefill_tokens_per_s: f64, decode_step_s: f64) -> Load {
    Load { running, prefill_tokens_per_s, decode_step_s, ..Load::default() }
}

fn alone(own: &Rates) -> Estimates<'_> {
    Estimates { own, pool: own }
}

fn close(got: f64, want: f64) {
    assert!((got / want - 1.0).abs() < 0.02, "{got} is not about {want}");
}

#[test]
fn before_any_report_the_priors_hold() {
    let rates = Rates::default();
    close(alone(&rates).prefill_s(40_000.0), 1.0);
    close(alone(&rates).decode_step_s(1), 4.95e-3);
    close(alone(&rates).handoff_s(0), 3e-3);
}

#[test]
fn reports_replace_the_priors() {
    let mut rates = Rates::default();
    rates.observe(&report(8, 1_000.0, 0.1));
    close(alone(&rates).prefill_s(1_000.0), 1.0);
    close(alone(&rates).decode_step_s(8), 0.1);
}

#[test]
fn what_a_worker_measured_before_anybody_asked_is_believed() {
    let mut rates = Rates::default();
    rates.observe(&report(0, 100.0, 0.05));
    close(alone(&rates).prefill_s(100.0), 1.0);
    close(alone(&rates).decode_step_s(1), 0.05);
}

#[test]
fn prompts_beside_sequences_are_slow_and_hold_those_up_by_their_own_time_alone() {
    let mut rates = Rates::default();
    assert_eq!(alone(&rates).lost_s(40_000.0), alone(&rates).prefill_s(40_000.0));
    rates.observe(&report(0, 40_000.0, 0.0));
    (0..50).for_each(|more| rates.observe(&report(100, 10_000.0 + f64::from(more), 0.01)));
    assert!(alone(&rates).prefill_s(40_000.0) > 3.9);
    close(alone(&rates).lost_s(40_000.0), 1.02);
}

#[test]
fn the_part_of_the_time_that_goes_to_prompts_is_learned() {
    let mut rates = Rates::default();
    assert_eq!(alone(&rates).prompts_share(), 0.0);
    rates.observe(&report(0, 40_000.0, 0.0));
    (0..20).for_each(|_| rates.observe_prompts(1_000, 0.1));
    close(alone(&rates).prompts_share(), 0.25);
    rates.observe_prompts(1 << 40, 0.1);
    assert!(alone(&rates).prompts_share() < 1.0);
    rates.observe_prompts(5, 0.0);
}

#[test]
fn a_decode_step_is_fitted_as_a_line_over_the_batch() {
    let mut rates = Rates::default();
    for running in (0..40).map(|step| 1 + step * 7 % 64) {
        rates.observe(&report(running, 0.0, 0.010 + 0.001 * f64::from(running)));
    }
    for sequences in [1, 32, 128] {
        close(alone(&rates).decode_step_s(sequences), 0.010 + 0.001 * f64::from(sequences));
    }
}

#[test]
fn at_one_batch_size_the_assumed_slope_is_scaled_to_the_speed_seen() {
    let mut rates = Rates::default();
    for _ in 0..10 {
        rates.observe(&report(1, 0.0, 49.5e-3));
    }
    close(alone(&rates).decode_step_s(101), 10.0 * (4.9e-3 + 101.0 * 4.8e-5));
}

#[test]
fn where_prompts_are_slow_so_are_steps_of_many_sequences() {
    let mut rates = Rates::default();
    for _ in 0..10 {
        rates.observe(&report(16, 300.0, 0.036));
    }
    let step_s = alone(&rates).decode_step_s(64);
    assert!((0.1..0.2).contains(&step_s), "{step_s}: four times as many rows");
}

#[test]
fn a_worker_without_evidence_is_thought_average() {
    let (mut fast, mut slow, new) = (Rates::default(), Rates::default(), Rates::default());
    fast.observe(&report(4, 3_000.0, 0.01));
    slow.observe(&report(4, 1_000.0, 0.03));
    let pool = Rates::pooled([&fast, &slow, &new]);
    let estimates = Estimates { own: &new, pool: &pool };
    close(estimates.decode_step_s(4), 0.02);
    close(estimates.prefill_s(3_000.0), 2.0);
}

#[test]
fn one_cold_start_is_forgiven_while_the_worker_idles() {
    let mut pool = Rates::default();
    (0..10).for_each(|_| pool.observe(&report(1, 0.0, 0.01)));
    let mut cold = Rates::default();
    cold.observe(&report(1, 0.0, 1.0));
    let judged = |own: &Rates| Estimates { own, pool: &pool }.decode_step_s(1);
    assert!(judged(&cold) > 0.4);
    (0..300).for_each(|_| cold.observe(&report(0, 0.0, 1.0)));
    assert!(judged(&cold) < 0.02, "{}", judged(&cold));
}

#[test]
fn repeating_a_rate_is_no_new_evidence() {
    let mut rates = Rates::default();
    rates.observe(&report(0, 1_000.0, 0.0));
    let once = rates.prefill_s_per_token;
    rates.observe(&report(0, 1_000.0, 0.0));
    assert_eq!(rates.prefill_s_per_token.mean_or(0.0), once.mean_or(0.0));
    assert!(rates.prefill_s_per_token.blend(0.0) < once.blend(0.0));
}

#[test]
fn hand_offs_are_fitted_over_the_prompt_length() {
    let (mut rates, mut totals) = (Rates::default(), HandoffTotals::default());
    for tokens in [100, 8_000, 2_000, 500, 16_000, 4_000, 9_000, 100, 12_000, 700] {
        totals.add(tokens, Duration::from_secs_f64(0.001 + 1e-5 * f64::from(tokens)));
        rates.observe(&Load { handoffs: totals, ..Load::default() });
    }
    close(alone(&rates).handoff_s(10_000), 0.101);
}

#[test]
fn of_hand_offs_that_nobody_tells_any_more_the_memory_fades() {
    let (mut rates, mut totals) = (Rates::default(), HandoffTotals::default());
    totals.add(1_000, Duration::from_secs(1));
    let told = Load { handoffs: totals, ..Load::default() };
    rates.observe(&told);
    // The router's pool has the worker in it, and with one prefill worker nobody else.
    let judged = |own: &Rates| Estimates { own, pool: &Rates::pooled([own]) }.handoff_s(1_000);
    let fresh = judged(&rates);
    (0..300).for_each(|_| rates.observe(&told));
    assert!(fresh > 0.4 && judged(&rates) < 0.02, "{fresh}, then {}", judged(&rates));
}

#[test]
fn short_prompts_that_were_held_up_say_little_of_long_ones() {
    let (mut rates, mut totals) = (Rates::default(), HandoffTotals::default());
    for tokens in [32, 60, 45] {
        totals.add(tokens, Duration::from_secs(4));
        rates.observe(&Load { handoffs: totals, ..Load::default() });
    }
    let long_s = alone(&rates).handoff_s(128_000);
    assert!(long_s < 5.0, "{long_s} s");
}

#[test]
fn totals_that_step_back_are_no_evidence() {
    let (mut rates, mut totals) = (Rates::default(), HandoffTotals::default());
    totals.add(1_000, Duration::from_secs(1));
    let earlier = totals;
    totals.add(9_000, Duration::from_secs(9));
    let told = |handoffs| Load { handoffs, ..Load::default() };
    rates.observe(&told(totals));
    let (before, _) = (alone(&rates).handoff_s(9_000), rates.observe(&told(earlier)));
    close(alone(&rates).handoff_s(9_000), before);
}

proptest! {
    #[test]
    fn estimates_are_finite_and_never_negative(
        reports in prop::collection::vec((0_u32..300, any::<f64>(), any::<f64>()), 0..30),
        handoffs in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..10),
        asked in 0_u32..100_000,
    ) {
        // Speeds a machine could have; the rest is what a broken worker could send.
        let tame = |value: f64| if value.abs() > 1e12 || value.abs() < 1e-12 { f64::NAN } else { value };
        let mut rates = Rates::default();
        for (running, prefill, step) in reports {
            rates.observe(&report(running, tame(prefill), tame(step)));
        }
        for (count, tokens, added_us) in handoffs {
            let handoffs = HandoffTotals { count, tokens, added_us };
            rates.observe(&Load { handoffs, ..Load::default() });
        }
        let pool = Rates::pooled([&rates, &Rates::default()]);
        let estimates = Estimates { own: &rates, pool: &pool };
        for seconds in [
            estimates.prefill_s(asked.into()),
            estimates.decode_step_s(asked),
            estimates.handoff_s(asked),
        ] {
            prop_assert!(seconds.is_finite() && seconds >= 0.0, "{seconds}");
        }
    }
}
