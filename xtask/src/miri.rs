//! `cargo xtask miri`: what threads share, under many schedules, with every access watched.

use std::process::Command;

use anyhow::Result;

use crate::process::{announce, run as run_command, succeeds};
use crate::{tools, workspace};

/// Arguments of `cargo xtask miri`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Schedules to try for each; a schedule has a number, and comes again by it.
    #[arg(long, default_value_t = 8)]
    schedules: u32,
}

/// A package, and how the names of its tests begin.
struct Core {
    package: &'static str,
    tests: &'static str,
}

/// What is shared. The last is one owner's, and here for the blocks that it holds.
const CORES: [Core; 3] = [
    Core { package: "kv-cache", tests: "pool::tests::threads" },
    Core { package: "engine", tests: "handle::outbox::" },
    Core { package: "kv-transfer", tests: "sender::outbox::" },
];

/// Of a Rust that has Miri: it is in nightly ones only.
const TOOLCHAIN: &str = "nightly";

/// Installs Miri if it is missing, and runs the tests in it.
///
/// # Errors
/// If it can't be installed, or finds something.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::require(&[&tools::PROTOC])?;
    require()?;
    for Core { package, tests } in CORES {
        announce(&format!("{package}: {tests} in {} schedules", args.schedules));
        let mut command = in_toolchain(&["test", "--package", package, "--lib", "--", tests]);
        let flags = format!("-Zmiri-disable-isolation -Zmiri-many-seeds=0..{}", args.schedules);
        run_command(command.env("MIRIFLAGS", flags))?;
    }
    Ok(())
}

fn require() -> Result<()> {
    let present = ["run", TOOLCHAIN, "cargo", "miri", "setup"];
    if succeeds("rustup", &present) {
        return Ok(());
    }
    announce("installing a nightly Rust with Miri (once)");
    let mut command = Command::new("rustup");
    command.args(["toolchain", "install", TOOLCHAIN, "--profile", "minimal"]);
    run_command(command.args(["--component", "miri", "--component", "rust-src"]))
}

/// Through rustup: the cargo that runs us is another.
fn in_toolchain(args: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", TOOLCHAIN, "cargo", "miri"]).args(args).current_dir(workspace::root());
    command
}
