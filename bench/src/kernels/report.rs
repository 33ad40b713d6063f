//! What the checks found.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Lab;
use crate::ceilings::Ceilings;
use crate::figure::{Better, Figure};

/// Below that it is launching that takes the time, and a ratio says nothing.
const BOUND_US_MIN: f64 = 1.0;

/// One kernel at one size.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelRow {
    /// Which.
    pub kernel: String,
    /// At which size.
    pub case: String,
    /// How far it is off the CPU, relative; `None` where it was timed alone.
    pub error: Option<f64>,
    /// How far it may be.
    pub error_max: f64,
    /// Of one call, on the device.
    pub us: Option<f64>,
    /// What it reads and writes at that time, GB/s.
    pub gb_per_s: Option<f64>,
    /// What it multiplies and adds at that time.
    pub tflop_per_s: Option<f64>,
    /// Times the bound, where that is a microsecond or more.
    pub ratio: Option<f64>,
}

/// Everything that was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelReport {
    /// On what.
    pub device: String,
    /// Of the random numbers.
    pub seed: u64,
    /// The card's rates, where something was timed.
    pub ceilings: Option<Ceilings>,
    /// In the order they were checked.
    pub rows: Vec<KernelRow>,
}

/// What a call costs at least.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    /// Read and written, each once.
    pub(super) bytes: f64,
    /// Multiplications and additions on tensor cores.
    pub(super) flops: f64,
}

// === impl KernelRow ===

impl KernelRow {
    pub(super) fn new(kernel: &str, case: impl Into<String>) -> Self {
        Self { kernel: kernel.to_owned(), case: case.into(), ..Self::default() }
    }

    /// Checked: the greatest relative difference, and what is rounding.
    pub(super) fn with_error(mut self, error: f64, error_max: f64) -> Self {
        (self.error, self.error_max) = (Some(error), error_max);
        self
    }

    /// Timed.
    pub(super) fn with_time(mut self, lab: &Lab<'_>, us: f64, cost: Cost) -> Self {
        let bound_us = lab.ceilings.map_or(0.0, |ceilings| {
            1e3 * ceilings.read_ms(cost.bytes).max(ceilings.product_ms(cost.flops))
        });
        self.us = Some(us);
        self.gb_per_s = (cost.bytes > 0.0).then_some(cost.bytes / us / 1e3);
        self.tflop_per_s = (cost.flops > 0.0).then_some(cost.flops / us / 1e6);
        self.ratio = (bound_us >= BOUND_US_MIN).then_some(us / bound_us);
        self
    }

    /// Whether it gives other numbers than the CPU.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.error.is_some_and(|error| error.is_nan() || error > self.error_max)
    }
}

impl fmt::Display for KernelRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, case, error, us, gb_per_s, tflop_per_s, ratio, .. } = self;
        let verdict = match error {
            Some(_) if self.is_wrong() => "WRONG",
            Some(_) => "ok",
            None => "",
        };
        let show = |value: &Option<f64>, digits: usize, unit: &str| {
            value.map_or(String::new(), |value| format!("{value:.digits$}{unit}"))
        };
        let error = error.map_or(String::new(), |error| format!("{error:.1e}"));
        let line = format!(
            "{kernel:<18} {case:<42} {verdict:<5} {error:>8} {:>12} {:>11} {:>13} {:>7}",
            show(us, 2, " us"),
            show(gb_per_s, 0, " GB/s"),
            show(tflop_per_s, 0, " TFLOP/s"),
            show(ratio, 2, ""),
        );
        f.write_str(line.trim_end())
    }
}

// === impl KernelReport ===

impl KernelReport {
    /// What can be compared with another run's: what was timed.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let timed = self.rows.iter().filter_map(|row| Some((row, row.us?)));
        let figure = |(row, us): (&KernelRow, f64)| {
            Figure::new(&row.kernel, format!("{}, us", row.case), us, Better::Less)
        };
        timed.map(figure).collect()
    }

    /// What a comparison presumes to be the same.
    pub(crate) fn setting(&self) -> Vec<(&'static str, String)> {
        vec![("device", self.device.clone())]
    }

    /// What gives other numbers than the CPU.
    pub fn wrong(&self) -> impl Iterator<Item = &KernelRow> {
        self.rows.iter().filter(|row| row.is_wrong())
    }
}

impl fmt::Display for KernelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seed {}", self.device, self.seed)?;
        if let Some(ceilings) = self.ceilings {
            write!(f, ": {ceilings}")?;
        }
        writeln!(f)?;
        let checked = self.rows.iter().filter(|row| row.error.is_some()).count();
        let wrong: Vec<_> = self.wrong().collect();
        write!(f, "{checked} cases checked against the CPU, {} wrong", wrong.len())?;
        wrong.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_only_where_they_were_measured() {
        let report = |ceilings| KernelReport {
            device: "a GPU".to_owned(),
            seed: 7,
            ceilings,
            rows: vec![KernelRow::new("softmax", "64 rows").with_error(1e-6, 1e-4)],
        };
        let checked = "1 cases checked against the CPU, 0 wrong";
        assert_eq!(report(None).to_string(), format!("a GPU, seed 7\n{checked}"));
        let timed = report(Some(Ceilings::H200)).to_string();
        assert!(timed.starts_with("a GPU, seed 7: reads 4300 GB/s"), "{timed}");
    }
}
