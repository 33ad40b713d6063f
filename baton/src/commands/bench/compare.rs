//! `baton bench compare`: two reports side by side.

use std::path::PathBuf;

use anyhow::{Result, bail};
use bench::{Comparison, Document};
use clap::Args;

use crate::out;

/// `baton bench compare`.
#[derive(Args, Clone, Debug)]
pub(super) struct CompareArgs {
    /// What `baton bench serve`, `engine` or `kernels` wrote with --json: before,
    #[arg(value_name = "A.json")]
    before: PathBuf,
    /// and after.
    #[arg(value_name = "B.json")]
    after: PathBuf,
    /// Fail (status 1) if a figure of B is worse than A's by more than this, percent (points, of the share that failed),
    /// or is missing, or if there is nothing to judge. What rests on too few requests or samples, and longest gaps, which
    /// are one of thousands, don't count. Runs differ by some percent anyway.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_above: Option<f64>,
}

/// Figures that an error names.
const NAMES_MAX: usize = 5;

/// Runs the command.
///
/// # Errors
/// If a file is none of this format, the two can't be compared, or something got too much worse.
pub(super) fn run(args: &CompareArgs) -> Result<()> {
    let (before, after) = (Document::read(&args.before)?, Document::read(&args.after)?);
    let comparison = Comparison::new(&before, &after)?;
    out::line(&comparison)?;
    let Some(most) = args.fail_above else { return Ok(()) };
    if !comparison.judges() {
        bail!("nothing can be judged: {}", comparison.left_out().unwrap_or_default());
    }
    match (losses(&comparison, most), missing(&comparison)) {
        (None, None) => Ok(()),
        (Some(why), None) | (None, Some(why)) => bail!("{why}"),
        (Some(losses), Some(missing)) => bail!("{losses}; {missing}"),
    }
}

/// What got worse, if anything did.
fn losses(comparison: &Comparison, most: f64) -> Option<String> {
    let worse: Vec<_> = comparison.worse_by(most).map(|pair| pair.before.to_string()).collect();
    let which = some(&worse);
    match worse.len() {
        0 => None,
        1 => Some(format!("one figure is worse by more than {most} %: {which}")),
        count => Some(format!("{count} figures are worse by more than {most} %: {which}")),
    }
}

/// What can't be compared, as B doesn't have it.
fn missing(comparison: &Comparison) -> Option<String> {
    let missing = comparison.missing();
    (!missing.is_empty()).then(|| format!("missing in B: {}", some(missing)))
}

/// The first few, and how many more there are: all of them are in the table.
fn some(names: &[String]) -> String {
    let (shown, more) = names.split_at(names.len().min(NAMES_MAX));
    match more.len() {
        0 => shown.join("; "),
        more => format!("{}, and {more} more", shown.join("; ")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').trim_end().parse().ok();
    percent
        .filter(|percent: &f64| *percent >= 0.0 && percent.is_finite())
        .ok_or("want a number from 0 up".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_five_and_counts_the_rest() {
        let names = |count: usize| (1..=count).map(|name| name.to_string()).collect::<Vec<_>>();
        assert_eq!(some(&names(1)), "1");
        assert_eq!(some(&names(5)), "1; 2; 3; 4; 5");
        assert_eq!(some(&names(12)), "1; 2; 3; 4; 5, and 7 more");
    }
}
