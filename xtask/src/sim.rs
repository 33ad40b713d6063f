//! `cargo xtask sim`: a cluster in virtual time, by seeds.

use anyhow::Result;

use crate::process::{announce, cargo, run as run_command};
use crate::tools;

/// Arguments of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them; without it, one from the time of day.
    #[arg(long)]
    seed: Option<u64>,
    /// A bug to plant, to see it found.
    #[arg(long)]
    bug: Option<String>,
    /// With optimised code: worth its build from some thousand seeds on.
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
    let mut command = cargo(["run", "--quiet", "--package", "simulation"]);
    if args.release {
        command.arg("--release");
    }
    command.args(["--", "--seeds", &args.seeds.to_string()]);
    command.args(args.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    command.args(args.bug.iter().flat_map(|bug| ["--bug", bug]));
    run_command(&mut command)
}
