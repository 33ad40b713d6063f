use rstest::rstest;

use super::*;

const HEAD_DIM: usize = 8;

fn rope(scaling: RopeScaling) -> Rope {
    Rope::new(&RopeConfig { theta: 10_000.0, scaling }, HEAD_DIM)
}

fn assert_close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 1e-6 * want.abs(), "{got} for {want}");
    }
}

fn llama3() -> RopeScaling {
    RopeScaling::Llama3(Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max: 256,
    })
}

fn yarn(truncate: bool) -> RopeScaling {
    RopeScaling::Yarn(YarnScaling {
        factor: 4.0,
        attention_factor: 1.25,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate,
        original_max: 2048,
    })
}

// Wanted numbers by hand: the plain frequencies are 1, 1/10, 1/100, 1/1000.
#[rstest]
#[case::plain(RopeScaling::None, [1.0, 0.1, 0.01, 0.001])]
#[case::linear(RopeScaling::Linear { factor: 4.0 }, [0.25, 0.025, 0.0025, 0.000_25])]
// Wavelengths 6.28, 62.8, 628, 6283: below 64 kept, above 256 divided.
#[case::llama3(llama3(), [1.0, 0.1, 0.001_25, 0.000_125])]
// The ramp runs from floor(1.01) = 1 to ceil(2.51) = 3.
#[case::yarn(yarn(true), [1.0, 0.1, 0.00625, 0.000_25])]
fn frequencies(#[case] scaling: RopeScaling, #[case] want: [f32; 4]) {
    assert_close(&rope(scaling).frequencies_at(0), &want);
}

#[test]
fn llama3_passes_smoothly_between_its_ends() {
    let scaling = Llama3Scaling {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max: 256,
    };
    // A wavelength of 128: 256 / 128 = 2 lies a third of the way from 1 to 4.
    let frequency = (2.0 * PI) as f32 / 128.0;
    let want = frequency * (2.0 / 3.0 / 8.0 + 1.0 / 3.0);
    assert_close(&[llama3_frequency(frequency, &scaling)], &[want]);
}

#[test]
fn an_unrounded_yarn_ramp_differs_from_a_rounded_one() {
    let (rounded, exact) = (rope(yarn(true)), rope(yarn(false)));
    let at = |rope: &Rope| rope.frequencies_at(0)[2];
    // log(2048 / (2 pi r)) * 8 / (2 log 10^4) is 1.0079 for 32 rotations, 2.5131 for one.
    let ramp = (2.0 - 1.007_9) / (2.513_1 - 1.007_9);
    let want = 0.01 * (1.0 - ramp) + 0.0025 * ramp;
    assert!((at(&exact) - want).abs() < 1e-6, "{} for {want}", at(&exact));
    assert!((at(&exact) - at(&rounded)).abs() > 1e-4);
}

#[test]
fn dynamic_frequencies_are_plain_up_to_the_original_context_and_stretch_with_the_position() {
    let dynamic = rope(RopeScaling::Dynamic { factor: 2.0, original_max: 100 });
    let plain = rope(RopeScaling::None);
    assert_eq!(dynamic.frequencies_at(0), plain.frequencies_at(0));
    assert_eq!(dynamic.frequencies_at(99), plain.frequencies_at(99));
    // A sequence of 150 tokens: theta * (2 * 1.5 - 1)^(8 / 6).
    let theta = 10_000.0 * 2f64.powf(8.0 / 6.0);
    let want: Vec<f32> = (0..4).map(|pair| theta.powf(-f64::from(pair) / 4.0) as f32).collect();
    assert_close(&dynamic.frequencies_at(149), &want);
}

#[test]
fn rows_hold_cosines_and_sines_times_the_attention_factor() {
    let rope = rope(yarn(true));
    let rows = rope.rows(&[0, 7]);
    assert_eq!((rows.pairs, rows.cos.len(), rows.sin.len()), (4, 8, 8));
    assert_close(&rows.cos[..4], &[1.25; 4]);
    assert_eq!(rows.sin[..4], [0.0; 4]);
    assert_close(&rows.cos[4..5], &[1.25 * 7f32.cos()]);
    assert_close(&rows.sin[4..5], &[1.25 * 7f32.sin()]);
}
