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
    /// Fail (status 1) if a figure of B is worse than A's by more than this, percent; longest gaps, which are one of
    /// thousands, don't count. Runs differ by some percent anyway.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    fail_above: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// If a file is none of this format, the two can't be compared, or something got too much worse.
pub(super) fn run(args: &CompareArgs) -> Result<()> {
    let (before, after) = (Document::read(&args.before)?, Document::read(&args.after)?);
    let comparison = Comparison::new(&before, &after)?;
    out::line(&comparison)?;
    let Some(most) = args.fail_above else { return Ok(()) };
    let worse: Vec<_> = comparison.worse_by(most).map(|pair| pair.before.to_string()).collect();
    match worse.len() {
        0 => Ok(()),
        1 => bail!("one figure is worse by more than {most} %: {}", worse[0]),
        count => bail!("{count} figures are worse by more than {most} %: {}", worse.join("; ")),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').trim_end().parse().ok();
    percent.filter(|percent: &f64| *percent >= 0.0).ok_or("want a number from 0 up".to_owned())
}
