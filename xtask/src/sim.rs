//! `cargo xtask sim`: a cluster in virtual time, by seeds.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{announce, cargo, run as run_command};
use crate::{tools, workspace};

/// Arguments of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them; without it, one from the time of day.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs at once; as many as there are cores without it.
    #[arg(long)]
    jobs: Option<usize>,
    /// A bug to plant, to see it found.
    #[arg(long)]
    bug: Option<String>,
    /// Prints what the seeds came through, and fails if there is something that none did.
    #[arg(long)]
    coverage: bool,
    /// The longest that a seed may take, in seconds.
    #[arg(long)]
    limit_s: Option<u64>,
    /// With optimised code, in the profile of `cargo xtask up`: worth its build for some ten thousand seeds.
    #[arg(long)]
    release: bool,
}

/// Builds the simulation and runs it.
///
/// # Errors
/// If it can't be built, or a seed fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::require(&[&tools::PROTOC])?;
    announce("simulating");
    let mut command = Command::new(build(args.release)?);
    command.args(["--seeds", &args.seeds.to_string()]);
    let numbers = [
        ("--seed", args.seed),
        ("--jobs", args.jobs.map(|jobs| jobs as u64)),
        ("--limit-s", args.limit_s),
    ];
    for (name, number) in numbers {
        command.args(number.iter().flat_map(|number| [name.to_owned(), number.to_string()]));
    }
    command.args(args.bug.iter().flat_map(|bug| ["--bug", bug]));
    command.args(args.coverage.then_some("--coverage"));
    run_command(&mut command)
}

/// Builds it as `cargo xtask test` does, with the same features of every dependency: whoever has run the
/// tests has it. Returns the program's path.
fn build(release: bool) -> Result<PathBuf> {
    let mut command = cargo(["test", "--workspace", "--no-run", "--quiet", "--test", "seeds"]);
    if release {
        command.args(["--profile", "up"]);
    }
    run_command(&mut command)?;
    let folder = if release { "up" } else { "debug" };
    Ok(workspace::target().join(folder).join("baton-simulation"))
}
