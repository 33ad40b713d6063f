//! How near two computations of the same are.

use std::fmt;

/// Relative errors of rows of logits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Errors {
    /// Of all rows together.
    pub(crate) overall: f64,
    /// Of the worst row.
    pub(crate) worst: f64,
    /// Which row that is.
    pub(crate) worst_row: usize,
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { overall, worst, worst_row } = self;
        write!(f, "{overall:.1e} (worst row {worst:.1e}, number {worst_row})")
    }
}

/// Compares rows of `cols` numbers. NaN anywhere is an infinite error.
pub(crate) fn errors(got: &[f32], want: &[f32], cols: usize) -> Errors {
    assert_eq!(got.len(), want.len(), "as many rows");
    let (mut errors, mut sums) = (Errors::default(), (0.0, 0.0));
    for (row, (got, want)) in got.chunks(cols).zip(want.chunks(cols)).enumerate() {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let off: f64 = got.iter().zip(want).map(|(got, want)| square(got - want)).sum();
        let off = if off.is_nan() { f64::INFINITY } else { off };
        let size: f64 = want.iter().map(|&want| square(want)).sum();
        sums = (sums.0 + off, sums.1 + size);
        let error = (off / size).sqrt();
        if error > errors.worst {
            (errors.worst, errors.worst_row) = (error, row);
        }
    }
    errors.overall = (sums.0 / sums.1).sqrt();
    errors
}

/// The largest difference of two numbers at the same place.
pub(crate) fn farthest(got: &[f32], want: &[f32]) -> f32 {
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max)
}

/// The place of the largest number; of equal ones, the first.
pub(crate) fn likeliest(logits: &[f32]) -> usize {
    let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
    (1..logits.len()).fold(0, better)
}
