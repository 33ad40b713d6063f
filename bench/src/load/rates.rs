//! Rates that are measured one after another.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// Sessions a second, ascending: `24`, `16..40`, `16..40:4`, or several of these with commas between.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates(Vec<f64>);

/// Steps of a range that names none, about: enough to see where a curve bends.
const STEPS: f64 = 6.0;

/// More than anybody waits for.
const RATES_MAX: usize = 200;

/// Slower ones send their second request after a quarter of an hour and more; no client sends faster ones.
const RATE: RangeInclusive<f64> = 0.001..=1e6;

const WANTED: &str = "want a rate (24), a range with both its ends (16..40, in steps of 5: 16..40:5), or several \
                      with commas between; all from 0.001 to 1000000";

// === impl Rates ===

impl Rates {
    /// Each once, ascending.
    pub fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().copied()
    }
}

impl FromStr for Rates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Result<Vec<_>, String> =
            text.split(',').map(|part| range(part.trim())).collect();
        let mut rates = parts?.concat();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        match rates.len() {
            0..=RATES_MAX => Ok(Self(rates)),
            _ => Err(too_many()),
        }
    }
}

/// The rates of one part.
fn range(text: &str) -> Result<Vec<f64>, String> {
    let Some((first, rest)) = text.split_once("..") else { return Ok(vec![rate(text)?]) };
    let (last, step) = rest.split_once(':').map_or((rest, None), |(last, step)| (last, Some(step)));
    let (first, last) = (rate(first)?, rate(last)?);
    if last <= first {
        return Err(format!("the end of {text} must be above its start"));
    }
    match step.map(positive).transpose()?.unwrap_or(round_step((last - first) / STEPS)) {
        step if (last - first) / step > RATES_MAX as f64 => Err(too_many()),
        step => Ok(steps(first, last, step)),
    }
}

/// From one end to the other, which are both among them.
fn steps(first: f64, last: f64, step: f64) -> Vec<f64> {
    let between = (0..=RATES_MAX).map(|number| first + number as f64 * step);
    // Written out in decimals a step is not quite what it says.
    let rates = between.take_while(|rate| *rate < last - step * 1e-6);
    rates.map(|rate| (rate * 1e6).round() / 1e6).chain([last]).collect()
}

fn too_many() -> String {
    format!("more than {RATES_MAX} rates")
}

/// The next number from here that people count in.
pub(crate) fn round_step(least: f64) -> f64 {
    let tens = 10f64.powf(least.log10().floor());
    let nice = [1.0, 2.0, 4.0, 5.0, 10.0].into_iter().map(|times| times * tens);
    nice.into_iter().find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(10.0 * tens)
}

fn rate(text: &str) -> Result<f64, String> {
    positive(text).ok().filter(|rate| RATE.contains(rate)).ok_or(WANTED.to_owned())
}

fn positive(text: &str) -> Result<f64, String> {
    let number =
        text.trim().parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or(WANTED.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let table: &[(&str, &[f64])] = &[
            ("24", &[24.0]),
            ("0.5", &[0.5]),
            ("16..40", &[16.0, 20.0, 24.0, 28.0, 32.0, 36.0, 40.0]),
            ("16..40:8", &[16.0, 24.0, 32.0, 40.0]),
            ("16..40:5", &[16.0, 21.0, 26.0, 31.0, 36.0, 40.0]),
            ("1..10", &[1.0, 3.0, 5.0, 7.0, 9.0, 10.0]),
            ("0.1..0.4:0.1", &[0.1, 0.2, 0.3, 0.4]),
            ("4..8:50", &[4.0, 8.0]),
            ("32, 8,16..24:8,24", &[8.0, 16.0, 24.0, 32.0]),
        ];
        for (text, want) in table {
            let rates: Rates = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(rates.0, *want, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_told_what_would_be_one() {
        for text in
            ["", "x", "0", "-3", "inf", "16..", "..16", "1..9:0", "1,,2", "1..9:x", "1e-9", "1e300"]
        {
            assert_eq!(text.parse::<Rates>(), Err(WANTED.to_owned()), "{text:?}");
        }
        for text in ["1..1000:1", "4..16:1e-9"] {
            assert_eq!(text.parse::<Rates>(), Err("more than 200 rates".to_owned()), "{text}");
        }
        for text in ["40..16", "5..5", "1, 4..2:1"] {
            let why = text.parse::<Rates>().expect_err(text);
            assert!(why.ends_with("must be above its start"), "{text}: {why}");
        }
    }
}
