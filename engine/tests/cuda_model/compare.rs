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
    /// Rows in all, and those that can't be explained by rounding.
    pub(crate) rows: usize,
    pub(crate) wrong: usize,
    /// The first of those.
    pub(crate) first_wrong: Option<usize>,
}

/// Far more than rounding to bfloat16 does.
const WRONG: f64 = 0.1;

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { overall, worst, worst_row, rows, wrong, first_wrong } = self;
        write!(f, "{overall:.1e} (worst row {worst:.1e}, number {worst_row}")?;
        match first_wrong {
            Some(first) => write!(f, "; {wrong} of {rows} wrong, number {first} first)"),
            None => f.write_str(")"),
        }
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
        errors.rows += 1;
        if error > WRONG {
            errors.wrong += 1;
            errors.first_wrong.get_or_insert(row);
        }
    }
    errors.overall = (sums.0 / sums.1).sqrt();
    errors
}

/// The largest difference of two numbers at the same place.
pub(crate) fn farthest(got: &[f32], want: &[f32]) -> f32 {
    got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, f32::max)
}
