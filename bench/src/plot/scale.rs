//! From numbers to places on an axis.

use crate::load::rates::round_step;

/// Where numbers are on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    /// The axis' ends: numbers.
    from: f64,
    to: f64,
    /// The same, in pixels.
    first: f64,
    last: f64,
    is_log: bool,
}

/// Ticks of an axis, about.
const TICKS: f64 = 5.0;

/// Numbers that are further apart than this are shown by their logarithms.
const LINEAR_MAX: f64 = 40.0;

// === impl Scale ===

impl Scale {
    /// From the least to the greatest of some numbers.
    pub(crate) fn between(values: impl Iterator<Item = f64>, (first, last): (f64, f64)) -> Self {
        let (from, to) = ends(values);
        // One number alone stands in the middle.
        let margin = if from < to { 0.0 } else { from.abs().max(1.0) * 0.1 };
        Self { from: from - margin, to: to + margin, first, last, is_log: false }
    }

    /// Over some numbers, from 0 if they are near enough to each other.
    pub(crate) fn over(values: impl Iterator<Item = f64>, (first, last): (f64, f64)) -> Self {
        let (least, most) = ends(values.filter(|&value| value > 0.0));
        if most > least * LINEAR_MAX && least > 0.0 {
            return Self { from: least / 1.2, to: most * 1.2, first, last, is_log: true };
        }
        Self::from_zero([most].into_iter(), (first, last))
    }

    /// From 0 to the greatest of some numbers.
    pub(crate) fn from_zero(values: impl Iterator<Item = f64>, (first, last): (f64, f64)) -> Self {
        let most = ends(values).1;
        let most = if most > 0.0 { most } else { 1.0 };
        Self { from: 0.0, to: most * 1.08, first, last, is_log: false }
    }

    /// Whether equal distances are equal ratios.
    pub(crate) fn is_log(self) -> bool {
        self.is_log
    }

    /// The place of a number; beyond the ends there is none.
    pub(crate) fn at(self, value: f64) -> f64 {
        let value = value.clamp(self.from, self.to);
        let share = match self.is_log {
            true => (value / self.from).ln() / (self.to / self.from).ln(),
            false => (value - self.from) / (self.to - self.from),
        };
        self.first + share * (self.last - self.first)
    }

    /// Numbers to write at the axis.
    pub(crate) fn ticks(self) -> Vec<f64> {
        let ticks = if self.is_log { self.log_ticks() } else { self.linear_ticks() };
        ticks.into_iter().filter(|&tick| self.from <= tick && tick <= self.to).collect()
    }

    fn linear_ticks(self) -> Vec<f64> {
        let step = round_step((self.to - self.from) / TICKS);
        let first = (self.from / step).ceil() as i64;
        (first..).map(|number| number as f64 * step).take_while(|tick| *tick <= self.to).collect()
    }

    /// All powers of ten, and as many between as there is room for.
    fn log_ticks(self) -> Vec<f64> {
        let (low, high) = (self.from.log10().floor() as i32, self.to.log10().ceil() as i32);
        let is_wide = self.to / self.from > 2e3;
        let times: &[f64] = if is_wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = (low..=high).map(|power| 10f64.powi(power));
        decades.flat_map(|tens| times.iter().map(move |times| times * tens)).collect()
    }
}

/// A tick as it is written.
pub(crate) fn label(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    rounded.to_string()
}

/// The least and the greatest; 0 of none.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    let (least, most) =
        values.fold(start, |(least, most), value| (least.min(value), most.max(value)));
    if least <= most { (least, most) } else { (0.0, 0.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_numbers_start_at_zero_and_far_ones_are_logarithms() {
        let near = Scale::over([10.0, 100.0].into_iter(), (100.0, 0.0));
        assert_eq!((near.at(0.0), near.is_log), (100.0, false));
        assert_eq!(near.ticks(), [0.0, 40.0, 80.0]);
        let far = Scale::over([2.0, 900.0].into_iter(), (100.0, 0.0));
        assert_eq!(far.ticks(), [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        let (ten, hundred, thousand) = (far.at(10.0), far.at(100.0), far.at(1000.0));
        assert!(
            ((ten - hundred) - (hundred - thousand)).abs() < 1e-9,
            "{ten} {hundred} {thousand}"
        );
    }

    #[test]
    fn nothing_and_one_number_have_a_place() {
        for values in [&[][..], &[0.0], &[7.0]] {
            let (x, y) = (
                Scale::between(values.iter().copied(), (0.0, 100.0)),
                Scale::over(values.iter().copied(), (100.0, 0.0)),
            );
            let value = values.first().copied().unwrap_or_default();
            assert!((x.at(value) - 50.0).abs() < 1e-9, "{values:?}");
            assert!(y.at(value).is_finite() && !y.ticks().is_empty(), "{values:?}");
        }
    }

    #[test]
    fn ticks_are_written_as_people_do() {
        let texts = [0.1 + 0.2, 40.0, 2500.0].map(label);
        assert_eq!(texts, ["0.3", "40", "2500"]);
    }
}
