use half::{bf16, f16};
use rstest::rstest;

use super::*;
use crate::backend::cpu::simd::FromFloat;
use crate::sampler::philox::Philox;

/// Numbers on [-1, 1).
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let generator = Philox::new(seed);
    (0..count as u32)
        .map(|i| generator.block([i, 0, 0, 0])[0] as i32 as f32 / 2f32.powi(31))
        .collect()
}

/// A type that says how one is widened, and no more.
impl Element for i16 {
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

impl FromFloat for i16 {
    fn from_f32(x: f32) -> Self {
        (x * 4.0) as Self
    }
}

fn product_of<E: Element>(isa: Isa, x: &[f32], w: &[E], k: usize) -> Vec<f32> {
    let rows: Vec<&[f32]> = x.chunks_exact(k).collect();
    let cols = w.len() / k;
    let mut out = vec![f32::NAN; rows.len() * cols];
    let block = OutBlock::new(&mut out, rows.len(), cols);
    // SAFETY: `out` is this function's own.
    unsafe { products(isa, &rows, w, k, block) };
    out
}

fn check_products<E: FromFloat>(rows: usize, cols: usize, k: usize) {
    let x = numbers(1, rows * k);
    let w: Vec<E> = numbers(2, cols * k).into_iter().map(E::from_f32).collect();
    let isas = Isa::available();
    let first = product_of(isas[0], &x, &w, k);
    for isa in isas {
        let out = product_of(isa, &x, &w, k);
        let bits = |out: &[f32]| -> Vec<u32> { out.iter().map(|x| x.to_bits()).collect() };
        assert_eq!(bits(&out), bits(&first), "{isa:?} gives other bits");
    }
    for (row, x) in x.chunks_exact(k).enumerate() {
        for (col, w) in w.chunks_exact(k).enumerate() {
            let exact: f64 =
                x.iter().zip(w).map(|(&x, w)| f64::from(x) * f64::from(w.to_f32())).sum();
            let got = f64::from(first[row * cols + col]);
            assert!(
                (got - exact).abs() < 1e-5 * (k as f64).sqrt(),
                "{got} for {exact} at {row}, {col}"
            );
        }
    }
}

#[rstest]
#[case::one(1, 1, 16)]
#[case::tail_only(1, 3, 5)]
#[case::decode(1, 67, 96)]
#[case::every_tile(7, 9, 40)]
#[case::large(23, 34, 257)]
fn products_are_exact_and_equal_on_every_instruction_set(
    #[case] rows: usize,
    #[case] cols: usize,
    #[case] k: usize,
) {
    check_products::<f32>(rows, cols, k);
    check_products::<bf16>(rows, cols, k);
    check_products::<f16>(rows, cols, k);
    check_products::<i16>(rows, cols, k);
}

#[test]
fn a_row_of_products_does_not_depend_on_the_rows_beside_it() {
    let (k, cols) = (72, 21);
    let (x, w) = (numbers(1, 13 * k), numbers(2, cols * k));
    for isa in Isa::available() {
        let all = product_of(isa, &x, &w, k);
        for rows in 1..13 {
            for first in 0..=13 - rows {
                let some = product_of(isa, &x[first * k..][..rows * k], &w, k);
                assert!(some == all[first * cols..][..rows * cols], "{rows} rows from {first}");
            }
        }
    }
}

#[rstest]
#[case(1, 5, 16)]
#[case(4, 7, 24)]
#[case(7, 33, 64)]
#[case(3, 2, 10)]
fn weighted_sums_are_exact_and_equal_on_every_instruction_set(
    #[case] rows: usize,
    #[case] count: usize,
    #[case] dim: usize,
) {
    let (p, v) = (numbers(3, rows * count), numbers(4, count * dim));
    let v: Vec<bf16> = v.into_iter().map(bf16::from_f32).collect();
    let weights: Vec<&[f32]> = p.chunks_exact(count).collect();
    let mut results = Isa::available().into_iter().map(|isa| {
        let mut out = vec![0.5; rows * dim];
        add_weighted(isa, &weights, &v, dim, &mut out);
        out
    });
    let first = results.next().unwrap();
    assert!(results.all(|out| out == first));
    for (i, &got) in first.iter().enumerate() {
        let (row, d) = (i / dim, i % dim);
        let sum: f32 = (0..count).map(|j| weights[row][j] * v[j * dim + d].to_f32()).sum();
        assert!((got - 0.5 - sum).abs() < 1e-5);
    }
}

#[test]
fn exponentials_are_accurate_and_equal_on_every_instruction_set() {
    let scores: Vec<f32> = (0..4001).map(|i| i as f32 * -0.02).collect();
    let mut results = Isa::available().into_iter().map(|isa| {
        let mut scores = scores.clone();
        let sum = exp_scores(isa, &mut scores, 1.0);
        (sum, scores)
    });
    let (sum, first) = results.next().unwrap();
    assert!(results.all(|result| result == (sum, first.clone())));
    for (x, got) in scores.iter().zip(&first) {
        let exact = f64::from(*x).exp();
        assert!((f64::from(*got) - exact).abs() <= exact * 2.5e-7, "e^{x} is {exact}, not {got}");
    }
    let exact: f64 = scores.iter().map(|&x| f64::from(x).exp()).sum();
    assert!((f64::from(sum) - exact).abs() < exact * 1e-6);
}

#[test]
fn exponentials_keep_nan_and_saturate() {
    for isa in Isa::available() {
        let mut scores = [0.0, f32::NAN, -1e9];
        assert!(exp_scores(isa, &mut scores, 1.0).is_nan());
        assert!(scores[0] == 1.0 && scores[1].is_nan() && scores[2] < 1e-37);
    }
}

#[test]
fn silu_matches_its_definition_at_both_ends() {
    let gate: Vec<f32> = (-500..500).map(|i| i as f32 * 0.3).collect();
    let up = vec![2.0; gate.len()];
    for isa in Isa::available() {
        let mut out = vec![0.0; gate.len()];
        silu_mul(isa, &gate, &up, &mut out);
        for (&x, &got) in gate.iter().zip(&out) {
            let exact = 2.0 * f64::from(x) / (1.0 + (-f64::from(x)).exp());
            assert!(
                (f64::from(got) - exact).abs() <= 1e-6 * exact.abs() + 1e-30,
                "silu({x}): {got} for {exact}"
            );
        }
    }
}
