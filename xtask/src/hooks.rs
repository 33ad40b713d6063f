//! `cargo xtask hooks`: git runs the quick checks before every commit.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{announce, run as run_command};
use crate::workspace;

/// The folder of hooks, from the root of the checkout.
const FOLDER: &str = ".githooks";

/// Arguments of `cargo xtask hooks`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Switch them off again.
    #[arg(long)]
    remove: bool,
}

/// Switches the hooks of this clone on or off.
///
/// # Errors
/// If git can't be run, or the clone has hooks of somebody else.
pub(crate) fn run(args: &Args) -> Result<()> {
    let now = folder()?;
    if now.as_deref().is_some_and(|folder| folder != FOLDER) {
        bail!("git's `core.hooksPath` is `{}` already", now.unwrap_or_default());
    }
    match (args.remove, now) {
        (true, Some(_)) => run_command(git().args(["config", "--unset", "core.hooksPath"])),
        (true, None) => Ok(()),
        (false, _) => {
            run_command(git().args(["config", "core.hooksPath", FOLDER]))?;
            announce("`cargo xtask check --quick` runs before each commit from now on");
            Ok(())
        }
    }
}

/// Where git looks for hooks, if anybody said.
fn folder() -> Result<Option<String>> {
    let told = git().args(["config", "core.hooksPath"]).output().context("cannot start `git`")?;
    let folder = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    Ok((!folder.is_empty()).then_some(folder))
}

fn git() -> Command {
    let mut command = Command::new("git");
    command.current_dir(workspace::root());
    command
}
