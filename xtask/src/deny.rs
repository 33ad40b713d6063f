//! `cargo-deny`, which holds dependencies against `deny.toml`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::process::{announce, cargo, run, succeeds};
use crate::workspace;

/// The version that is known to read our `deny.toml`.
const CARGO_DENY: &str = "0.20.2";

/// Checks `what` of the dependencies, e.g. `licenses`.
///
/// # Errors
/// If it can't be installed, or one of them is not as it should be.
pub(crate) fn check(what: &[&str]) -> Result<()> {
    let mut command = Command::new(program()?);
    command.args(["--log-level", "error", "check"]).args(what);
    run(command.current_dir(workspace::root()))
}

/// The `cargo-deny` that is installed, or else our own in `target/tools`.
fn program() -> Result<PathBuf> {
    if succeeds("cargo-deny", &["--version"]) {
        return Ok("cargo-deny".into());
    }
    let folder = workspace::target().join("tools");
    let program = folder.join("bin/cargo-deny");
    if !succeeds(&program, &["--version"]) {
        announce("installing cargo-deny into target/tools (once; one or two minutes)");
        // Unoptimised: it compiles in half the time and still checks us in a second.
        run(cargo(["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY])
            .arg("--root")
            .arg(&folder)
            .arg("--target-dir")
            .arg(folder.join("build")))?;
    }
    Ok(program)
}
