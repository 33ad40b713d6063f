//! `cargo xtask check`: what tests don't see.

use std::time::Duration;

use anyhow::{Result, bail};
use console::style;

use crate::process::{self, announce, cargo, shown_time, timed};
use crate::{deny, tools};

/// Arguments of `cargo xtask check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Format the code instead of checking its format.
    #[arg(long)]
    fix: bool,
    /// Only what takes seconds: the format, and the rules of the repository, which else are among the tests.
    #[arg(long, conflicts_with = "skip")]
    quick: bool,
    /// Leave out the step with this name; may be given more than once.
    #[arg(long, value_name = "STEP", value_parser = ["format", "lints", "dependencies", "docs"])]
    skip: Vec<String>,
}

/// One thing to check.
struct Step {
    name: &'static str,
    work: Box<dyn FnOnce() -> Result<()>>,
}

/// How a step went.
struct Outcome {
    name: &'static str,
    result: Result<()>,
    time: Duration,
}

/// Runs every step and prints how each went.
///
/// # Errors
/// If any step failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    let outcomes: Vec<Outcome> = steps(args)
        .into_iter()
        .filter(|step| !args.skip.iter().any(|skipped| skipped == step.name))
        .map(Step::run)
        .collect();
    summarise(&outcomes)
}

fn steps(args: &Args) -> Vec<Step> {
    let fix = args.fix;
    let format = Step::new("format", move || format(fix));
    if args.quick {
        return vec![format, Step::new("rules", rules)];
    }
    vec![
        format,
        Step::new("lints", lints),
        Step::new("dependencies", dependencies),
        Step::new("docs", docs),
    ]
}

fn format(fix: bool) -> Result<()> {
    let mut command = cargo(["fmt", "--all"]);
    if !fix {
        command.arg("--check");
    }
    process::run(&mut command)
}

fn lints() -> Result<()> {
    tools::require(&[&tools::PROTOC])?;
    process::run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn dependencies() -> Result<()> {
    deny::check(&["bans", "licenses", "sources"])
}

/// With the features that a build of everything gives its dependencies: the tests have compiled them.
fn rules() -> Result<()> {
    process::run(&mut cargo(["test", "--workspace", "--quiet", "--test", "architecture"]))
}

fn docs() -> Result<()> {
    tools::require(&[&tools::PROTOC])?;
    process::run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn summarise(outcomes: &[Outcome]) -> Result<()> {
    println!();
    for outcome in outcomes {
        let mark = match outcome.result {
            Ok(()) => style("ok    ").green(),
            Err(_) => style("FAILED").red().bold(),
        };
        println!("{mark}  {:<14} {}", outcome.name, shown_time(outcome.time));
        if let Err(error) = &outcome.result {
            println!("        {error:#}");
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.result.is_err()).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", outcomes.len());
    }
    Ok(())
}

// === impl Step ===

impl Step {
    fn new(name: &'static str, work: impl FnOnce() -> Result<()> + 'static) -> Self {
        Self { name, work: Box::new(work) }
    }

    fn run(self) -> Outcome {
        announce(self.name);
        let (result, time) = timed(self.work);
        Outcome { name: self.name, result, time }
    }
}
