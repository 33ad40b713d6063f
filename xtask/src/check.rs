//! `cargo xtask check`: what tests don't see.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use console::style;

use crate::process::{self, announce, cargo, shown_time, succeeds, timed};
use crate::{tools, workspace};

/// Arguments of `cargo xtask check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also look dependencies up in the list of known vulnerabilities (needs the network).
    #[arg(long)]
    advisories: bool,
    /// Format the code instead of checking its format.
    #[arg(long)]
    fix: bool,
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

/// The version that is known to read our `deny.toml`.
const CARGO_DENY: &str = "0.20.2";

/// Runs every step and prints how each went.
///
/// # Errors
/// If any step failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::require(&[&tools::PROTOC])?;
    let outcomes: Vec<Outcome> = steps(args)
        .into_iter()
        .filter(|step| !args.skip.iter().any(|skipped| skipped == step.name))
        .map(Step::run)
        .collect();
    summarise(&outcomes)
}

fn steps(args: &Args) -> Vec<Step> {
    let (fix, advisories) = (args.fix, args.advisories);
    vec![
        Step::new("format", move || format(fix)),
        Step::new("lints", lints),
        Step::new("dependencies", move || dependencies(advisories)),
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
    process::run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn dependencies(advisories: bool) -> Result<()> {
    let mut command = Command::new(cargo_deny()?);
    command.args(["--log-level", "error", "check", "bans", "licenses", "sources"]);
    if advisories {
        command.arg("advisories");
    }
    process::run(command.current_dir(workspace::root()))
}

fn docs() -> Result<()> {
    process::run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The `cargo-deny` that is installed, or else our own in `target/tools`.
fn cargo_deny() -> Result<PathBuf> {
    if succeeds("cargo-deny", &["--version"]) {
        return Ok("cargo-deny".into());
    }
    let folder = workspace::target().join("tools");
    let program = folder.join("bin/cargo-deny");
    if !succeeds(&program, &["--version"]) {
        announce("installing cargo-deny into target/tools (once; one or two minutes)");
        // Unoptimised: it compiles in half the time and still checks us in a second.
        process::run(
            cargo(["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY])
                .arg("--root")
                .arg(&folder)
                .arg("--target-dir")
                .arg(folder.join("build")),
        )?;
    }
    Ok(program)
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
