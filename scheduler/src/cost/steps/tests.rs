//! Forecasts against made-up machines, and against steps that were recorded.

use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;

use super::*;

mod recorded;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(most.max(1))) as u32
    }

    fn noise(&mut self, share: f64) -> f64 {
        1.0 + share * (f64::from(self.below(2001)) / 1000.0 - 1.0)
    }
}

/// A step as a busy engine has them: some rows that decode, now and then chunks of prompts.
fn served(dice: &mut Dice) -> StepShape {
    let mut shape = StepShape::default();
    for _ in 0..dice.below(200) {
        shape = shape + StepShape::row(900 + dice.below(400));
    }
    if dice.below(3) > 0 || shape.rows() == 0 {
        for _ in 0..=dice.below(2) {
            shape = shape + StepShape::chunk(16 * dice.below(200), 16 * (1 + dice.below(60)));
        }
    }
    shape
}

/// Another machine: an H100's slower memory, its faster clock, and products that fill at other rows.
fn h100(shape: &StepShape) -> f64 {
    let rows = f64::from(shape.rows());
    let products = (5.1e-3_f64).max(17.0e-6 * rows + 0.8e-3);
    products
        + 0.9e-9 * shape.prompt_pairs as f64
        + 43e-9 * shape.decode_context as f64
        + 6e-6 * f64::from(shape.decode_rows)
        + 60e-6 * f64::from(shape.prompts)
}

fn cpu(shape: &StepShape) -> f64 {
    0.4e-3
        + 0.9e-3 * f64::from(shape.rows())
        + 0.3e-6 * shape.prompt_pairs as f64
        + 1.1e-6 * shape.decode_context as f64
}

/// Absolute errors of `count` forecasts, in order of size, after `before` steps.
fn errors(
    seed: StepSeed,
    machine: fn(&StepShape) -> f64,
    noise: f64,
    (before, count): (usize, usize),
) -> Vec<f64> {
    let (mut times, mut dice) = (StepTimes::new(seed), Dice(7));
    let mut errors = Vec::new();
    for nth in 0..before + count {
        let shape = served(&mut dice);
        let took = Duration::from_secs_f64(machine(&shape) * dice.noise(noise));
        let off = times.observe(&shape, took);
        if nth >= before {
            errors.push(off.expect("it has seen some").abs());
        }
    }
    errors.sort_by(f64::total_cmp);
    errors
}

#[rstest]
#[case::of_the_same_machine(StepSeed::GPU, h100)]
#[case::of_another(StepSeed::CPU, cpu)]
#[case::where_the_seed_is_wrong(StepSeed::CPU, h100)]
fn after_some_seconds_of_serving_forecasts_are_right(
    #[case] seed: StepSeed,
    #[case] machine: fn(&StepShape) -> f64,
) {
    let errors = errors(seed, machine, 0.02, (2000, 2000));
    let (median, p99) = (errors[errors.len() / 2], errors[errors.len() * 99 / 100]);
    assert!(median <= 0.05 && p99 <= 0.15, "median {median:.3}, p99 {p99:.3}");
}

#[test]
fn the_seed_is_what_was_measured() {
    let times = StepTimes::new(StepSeed::GPU);
    let decode = |rows: u32| {
        let shape: StepShape = (0..rows).map(|_| StepShape::row(1120)).sum();
        times.forecast_s(&shape) * 1e3
    };
    for (rows, ms) in [(1, 4.07), (8, 4.34), (32, 5.37), (64, 6.69), (128, 9.43), (256, 15.73)] {
        let got = decode(rows);
        assert!((got / ms - 1.0).abs() < 0.07, "{rows} rows: {got:.2} and not {ms} ms");
    }
    for (tokens, ms) in [(512, 10.9), (2048, 39.6), (8192, 185.0)] {
        let got = times.forecast_s(&StepShape::chunk(0, tokens)) * 1e3;
        assert!((got / ms - 1.0).abs() < 0.07, "{tokens} tokens: {got:.1} and not {ms} ms");
    }
}

#[test]
fn a_slow_first_step_and_later_mishaps_are_forgiven() {
    let (mut times, mut dice) = (StepTimes::new(StepSeed::GPU), Dice(3));
    let shape = StepShape::row(1000);
    for nth in 0..500 {
        let slow = if nth == 0 {
            100.0
        } else if nth % 50 == 0 {
            20.0
        } else {
            1.0
        };
        times.observe(&shape, Duration::from_secs_f64(5e-3 * slow * dice.noise(0.02)));
    }
    let forecast = times.forecast_s(&shape);
    assert!((forecast / 5e-3 - 1.0).abs() < 0.1, "{forecast}");
}

#[test]
fn a_machine_that_slows_down_is_followed() {
    let (mut times, mut dice) = (StepTimes::new(StepSeed::GPU), Dice(5));
    for nth in 0..6000 {
        let shape = served(&mut dice);
        let slower = if nth < 3000 { 1.0 } else { 1.3 };
        times.observe(&shape, Duration::from_secs_f64(h100(&shape) * slower));
    }
    assert!(times.error() < 0.05, "{}", times.error());
}

/// A machine that others use, too: one step of ten is held up, some tenfold, and now and then the clock stands still.
#[test]
fn forecasts_stay_right_among_steps_that_were_held_up() {
    let (mut times, mut dice) = (StepTimes::new(StepSeed::CPU), Dice(13));
    let mut errors = Vec::new();
    for nth in 0..20_000 {
        let shape = if dice.below(3) == 0 { served(&mut dice) } else { StepShape::row(200) };
        let held_up = match dice.below(100) {
            0 => 0.0,
            1..10 => f64::from(10 + dice.below(90)) / 10.0,
            _ => dice.noise(0.05),
        };
        let off = times.observe(&shape, Duration::from_secs_f64(cpu(&shape) * held_up));
        if nth > 1000 {
            errors.push(off.expect("a forecast").abs());
        }
    }
    errors.sort_by(f64::total_cmp);
    let median = errors[errors.len() / 2];
    assert!(median <= 0.15, "{median}");
}

#[test]
fn whoever_was_often_wrong_is_careful() {
    let (mut times, mut dice) = (StepTimes::new(StepSeed::GPU), Dice(11));
    let shape = StepShape::chunk(0, 512);
    for _ in 0..1000 {
        times.observe(&shape, Duration::from_secs_f64(0.010 * dice.noise(0.2)));
    }
    let (mean, most) = (times.forecast_s(&shape), times.forecast_at_most_s(&shape));
    assert!(most > 1.15 * mean && most < 1.3 * mean, "{mean} {most}");
}

proptest! {
    #[test]
    fn forecasts_are_times_and_longer_chunks_take_no_less(
        steps in prop::collection::vec((0_u32..300, 0_u32..3, 1_u32..9000, any::<u64>()), 0..60),
        asked in 1_u32..9000,
    ) {
        let mut times = StepTimes::new(StepSeed::GPU);
        for (rows, prompts, tokens, nanos) in steps {
            let decoding: StepShape = (0..rows).map(|row| StepShape::row(row * 10)).sum();
            let chunks = (0..prompts).map(|nth| StepShape::chunk(nth * tokens, tokens));
            let shape = decoding + chunks.sum();
            times.observe(&shape, Duration::from_nanos(nanos));
        }
        let of = |tokens| times.forecast_s(&StepShape::chunk(64, tokens));
        prop_assert!(of(asked).is_finite() && of(asked) > 0.0);
        prop_assert!(of(asked + 16) >= of(asked));
    }
}

/// A seed of a GPU, and rows that take ten times as long as its whole step, each by itself: no tiles.
#[test]
fn a_machine_that_is_quite_different_is_known_after_one_long_step() {
    let mut times = StepTimes::new(StepSeed::GPU);
    let real = |shape: &StepShape| Duration::from_secs_f64(0.2e-3 * f64::from(shape.rows() + 1));
    let decode = StepShape::row(20);
    (0..20).for_each(|_| {
        times.observe(&decode, real(&decode));
    });
    let long = decode + StepShape::chunk(0, 100);
    times.observe(&long, real(&long));
    let next = decode + StepShape::chunk(100, 128);
    let off = times.observe(&next, real(&next)).expect("a forecast");
    assert!(off.abs() < 0.25, "{off}");
}
