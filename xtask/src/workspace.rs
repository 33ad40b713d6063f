//! Where things are in the checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    // The manifest of this crate is one folder below it, wherever the checkout lies.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Cargo's output folder, honouring `CARGO_TARGET_DIR`.
pub(crate) fn target() -> PathBuf {
    variable("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs us, so that `cargo +toolchain xtask` stays on that toolchain.
pub(crate) fn cargo() -> String {
    variable("CARGO").unwrap_or_else(|| "cargo".to_owned())
}

/// The machine's name among compilers.
///
/// # Errors
/// If there is no compiler that tells.
pub(crate) fn host() -> Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("cannot start `rustc`")?;
    let told = String::from_utf8_lossy(&told.stdout);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// Where cargo keeps what it has fetched.
///
/// # Errors
/// If nothing says where.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    let home = || variable("HOME").map(|home| Path::new(&home).join(".cargo"));
    variable("CARGO_HOME").map(PathBuf::from).or_else(home).context("no CARGO_HOME and no HOME")
}

/// A variable that cargo or the user's shell sets for tools.
#[expect(clippy::disallowed_methods, reason = "a build tool; Baton's configuration is elsewhere")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
