//! `cargo xtask chaos`: a real cluster under faults, by a seed.

use anyhow::Result;

use crate::process::{announce, cargo, run as run_command};
use crate::tools;

/// Arguments of `cargo xtask chaos`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Chooses all faults and requests; without it, one from the time of day.
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds Baton and the driver, and runs that.
///
/// # Errors
/// If it can't be built, or something is found.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::require(&[&tools::PROTOC, &tools::ETCD])?;
    announce("building Baton and chaos");
    let packages = ["--package", "baton", "--package", "baton-tests"];
    run_command(cargo(["build", "--bins"]).args(packages))?;
    announce("breaking things");
    let mut command = cargo(["run", "--quiet", "--package", "baton-tests", "--bin", "chaos"]);
    command.args(["--", "--minutes", &args.minutes.to_string()]);
    command.args(args.seed.iter().flat_map(|seed| ["--seed".to_owned(), seed.to_string()]));
    run_command(&mut command)
}
