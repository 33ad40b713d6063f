//! Forecasts of steps that an engine served.

use super::*;

/// 2,000 steps in a row of one engine on an H200: Llama-3.1-8B's shape, bf16, `--itl-target-ms 30`, 30 November 2026,
/// under `baton bench serve --rate 28..40 --input 1024 --output 128`. Of the whole run, and of two others, docs/perf/2026-11-30-steps.md tells.
const H200: &str = include_str!("h200.csv");

/// Steps in which a new engine learns what it is like.
const FIRST: usize = 64;

/// A step, and seconds that it took.
fn steps(text: &str) -> impl Iterator<Item = (StepShape, f64)> + '_ {
    text.lines().skip(1).map(|line| {
        let numbers: Vec<u64> =
            line.split(',').map(|word| word.parse().expect("a number")).collect();
        let [took_us, prompts, prompt_tokens, prompt_pairs, decode_rows, decode_context] =
            numbers[..].try_into().expect("six numbers");
        let of = |number: u64| u32::try_from(number).expect("a small number");
        let shape = StepShape {
            prompts: of(prompts),
            prompt_tokens: of(prompt_tokens),
            prompt_pairs,
            decode_rows: of(decode_rows),
            decode_context,
        };
        (shape, took_us as f64 * 1e-6)
    })
}

/// Errors of forecasts after the first steps, as shares of the time, with the steps' shapes.
fn replay(text: &str, seed: StepSeed) -> Vec<(f64, StepShape)> {
    let mut times = StepTimes::new(seed);
    let errors = steps(text).map(|(shape, took_s)| {
        let off = (times.forecast_s(&shape) - took_s) / took_s;
        times.observe(&shape, Duration::from_secs_f64(took_s));
        (off.abs(), shape)
    });
    errors.skip(FIRST).collect()
}

/// The errors above the median, nine of ten and 99 of 100.
fn quantiles(errors: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut errors: Vec<f64> = errors.collect();
    errors.sort_by(f64::total_cmp);
    [50, 90, 99].map(|percent| errors.get(errors.len() * percent / 100).copied().unwrap_or(0.0))
}

#[test]
fn steps_that_were_served_are_forecast() {
    let [median, _, p99] = quantiles(replay(H200, StepSeed::GPU).into_iter().map(|(off, _)| off));
    assert!(median <= 0.05 && p99 <= 0.15, "median {median:.3}, p99 {p99:.3}");
}

/// All figures: `cargo test -p scheduler --lib -- --ignored --no-capture recorded`.
#[test]
#[ignore = "prints figures"]
#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn recorded_steps_by_their_rows() {
    let errors = replay(H200, StepSeed::GPU);
    let print = |name: &str, takes: &dyn Fn(&StepShape) -> bool| {
        let of = || errors.iter().filter(|(_, shape)| takes(shape)).map(|(off, _)| *off);
        let [median, p90, p99] = quantiles(of()).map(|share| share * 100.0);
        println!("{name:10} {:6} steps: {median:5.1} {p90:5.1} {p99:5.1} %", of().count());
    };
    print("all", &|_| true);
    print("decode", &|shape| shape.prompts == 0);
    for (above, most) in [(0, 128), (128, 512), (512, 896), (896, 1024), (1024, u32::MAX)] {
        let name = format!("> {above}");
        print(&name, &|shape| shape.prompts > 0 && (above + 1..=most).contains(&shape.rows()));
    }
}
