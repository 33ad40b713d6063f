//! `baton bench kernels`: is every kernel right, and how near is it to the hardware's bound?
//!
//! The CPU backend is the reference: each operation runs on both, on the same fresh random numbers,
//! and what comes out is compared. Then it is timed on the GPU alone. A bound is the time that the
//! card's own rates allow for the operation's bytes or for its multiplications, whichever is longer.
//!
//! [`Extent::Small`] is for a sanitizer, under which a kernel takes some thousand times as long.

pub(crate) mod attention;
pub(crate) mod memory;
pub(crate) mod products;
mod report;
pub(crate) mod rig;
mod rows;
mod sampling;

use anyhow::{Result, ensure};
use engine::cuda::measure::Yardstick;
use engine::{CudaOptions, ModelConfig};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

pub use self::report::{KernelReport, KernelRow};
use crate::ceilings::Ceilings;
use crate::models::{Checkpoint, ModelSource};

/// Which kernels, and on what.
#[derive(Clone, Debug)]
pub struct KernelBench {
    /// The GPU, and whether to use the portable kernels.
    pub cuda: CudaOptions,
    /// Groups whose name contains this; all without.
    pub only: Option<String>,
    /// Of the random numbers.
    pub seed: u64,
    /// How many cases, and whether they are timed.
    pub extent: Extent,
}

/// How much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// All cases, checked and timed.
    #[default]
    Timed,
    /// All cases, checked alone.
    Checked,
    /// Few and small cases, checked alone: every path through a kernel, and no call of the library that
    /// can do without.
    Small,
}

/// Hears of each row.
pub type OnRow<'a> = dyn FnMut(&KernelRow) + 'a;

/// Checks of one kernel, or of several that belong together.
type Group = (&'static str, fn(&mut Lab<'_>) -> Result<()>);

const GROUPS: [Group; 6] = [
    ("rows", rows::run),
    ("products", products::run),
    ("attention", attention::run),
    ("sampling", sampling::run),
    ("pages", memory::pages),
    ("softmax", memory::softmax),
];

/// What all checks work with.
pub(crate) struct Lab<'a> {
    bench: &'a KernelBench,
    yardstick: Yardstick,
    ceilings: Option<Ceilings>,
    rng: ChaCha8Rng,
    report: KernelReport,
    on_row: &'a mut OnRow<'a>,
}

// === impl KernelBench ===

impl KernelBench {
    /// Checks and times.
    ///
    /// # Errors
    /// If the GPU can't be used, a launch fails, or nothing is called `only`. A kernel that is wrong
    /// is in the report: see [`KernelReport::wrong`].
    pub fn run<'a>(&'a self, on_row: &'a mut OnRow<'a>) -> Result<KernelReport> {
        let wanted =
            |name: &str| self.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
        let names = GROUPS.map(|(name, _)| name).join(", ");
        ensure!(GROUPS.iter().any(|(name, _)| wanted(name)), "--only wants one of {names}");
        // Keeps the device open, so that no check has to open it anew.
        let yardstick = Yardstick::open(&self.cuda)?;
        // Without times nothing is compared with them.
        let is_timed = self.extent == Extent::Timed;
        let ceilings = is_timed.then(|| Ceilings::measure(&yardstick)).transpose()?;
        let name = yardstick.device_name().to_owned();
        let report = KernelReport { device: name, seed: self.seed, ceilings, rows: Vec::new() };
        let rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut lab = Lab { bench: self, yardstick, ceilings, rng, report, on_row };
        for (_, run) in GROUPS.iter().filter(|(name, _)| wanted(name)) {
            run(&mut lab)?;
        }
        Ok(lab.report)
    }
}

// === impl Lab ===

impl Lab<'_> {
    pub(crate) fn options(&self) -> &CudaOptions {
        &self.bench.cuda
    }

    fn is_timed(&self) -> bool {
        self.bench.extent == Extent::Timed
    }

    /// Whether cases are to be few and small.
    fn is_small(&self) -> bool {
        self.bench.extent == Extent::Small
    }

    /// A key for random numbers that nobody has had.
    fn key(&mut self) -> u64 {
        self.rng.random()
    }

    /// Rows of a table, at random.
    fn tokens(&mut self, count: usize, table: usize) -> Vec<u32> {
        (0..count).map(|_| self.rng.random_range(0..table as u32)).collect()
    }

    /// Some of `count` rows, ascending: the ends, and others at random.
    fn some_rows(&mut self, count: usize, most: usize) -> Vec<usize> {
        if count <= most {
            return (0..count).collect();
        }
        let mut rows: Vec<usize> = (2..most).map(|_| self.rng.random_range(0..count)).collect();
        rows.extend([0, count - 1]);
        rows.sort_unstable();
        rows.dedup();
        rows
    }

    fn row(&mut self, row: KernelRow) {
        (self.on_row)(&row);
        self.report.rows.push(row);
    }
}

/// A known shape's configuration.
pub(crate) fn config_of(shape: &str) -> Result<ModelConfig> {
    let checkpoint = Checkpoint::open(&ModelSource::Shape(shape.parse()?))?;
    Ok(ModelConfig::load(checkpoint.dir())?)
}

/// Rows of `all`, each `cols` wide.
fn pick(all: &[f32], cols: usize, rows: &[usize]) -> Vec<f32> {
    rows.iter().flat_map(|&row| &all[row * cols..][..cols]).copied().collect()
}

/// How far `got` is off: the greatest difference relative to the wanted value or, for small ones, to
/// the root mean square of all. Infinite where one isn't a number or lengths differ.
fn error(got: &[f32], wanted: &[f32]) -> f64 {
    if got.len() != wanted.len() {
        return f64::INFINITY;
    }
    let square = |x: &f32| f64::from(*x) * f64::from(*x);
    let rms = (wanted.iter().map(square).sum::<f64>() / wanted.len().max(1) as f64).sqrt();
    let off = got.iter().zip(wanted).map(|(got, wanted)| {
        let difference = f64::from((got - wanted).abs());
        if difference.is_nan() {
            f64::INFINITY
        } else {
            difference / (f64::from(wanted.abs()) + rms)
        }
    });
    off.fold(0.0, |most, off| if off.is_nan() { most } else { most.max(off) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_infinitely_wrong() {
        assert_eq!(error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert_eq!(error(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
        assert_eq!(error(&[f32::NAN, 2.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        let off = error(&[1.0, 1.1], &[1.0, 1.0]);
        assert!((off - 0.05).abs() < 1e-6, "{off}");
    }
}
