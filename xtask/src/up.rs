//! `cargo xtask up`: from a fresh checkout to a cluster that answers.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{self, announce, cargo, shown_time, timed};
use crate::{tools, workspace};

/// Arguments of `cargo xtask up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to `baton up`, e.g. `--model DIR` or `--http 0.0.0.0:8000`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Builds Baton and runs it until it is stopped.
///
/// # Errors
/// If a tool is missing, the build fails, or Baton ends with a failure.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut command = Command::new(build("up")?);
    command.arg("up").args(&args.args).current_dir(workspace::root());
    become_it(&mut command)
}

/// Builds `baton` in a profile of the workspace, with cargo's progress on the terminal: `up`, which
/// is there soon, or `release`, which is what is shipped and measured. Returns the program's path.
///
/// # Errors
/// If `protoc` cannot be installed or the build fails.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    tools::require(&[&tools::PROTOC])?;
    announce("building Baton (the first time takes some minutes)");
    let (built, time) =
        timed(|| process::run(&mut cargo(["build", "--profile", profile, "--package", "baton"])));
    built?;
    announce(&format!("built in {}", shown_time(time)));
    Ok(workspace::target().join(profile).join("baton"))
}

/// Replaces this process, so that signals and the terminal belong to Baton alone.
#[cfg(unix)]
pub(crate) fn become_it(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;

    let error = command.exec();
    Err(anyhow::Error::new(error).context(format!("cannot start `{}`", process::shown(command))))
}

/// Runs it to its end.
#[cfg(not(unix))]
pub(crate) fn become_it(command: &mut Command) -> Result<()> {
    process::run(command)
}
