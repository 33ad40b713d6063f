//! The Python environment of the tests: `target/python`, made once from pinned requirements.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{announce, run};
use crate::workspace;

const REQUIREMENTS: &str = "tests/python/requirements.txt";

/// Makes the environment, or leaves it when it was made from the same requirements.
///
/// # Errors
/// If `python3 -m venv` or `pip install` fails.
pub(crate) fn require_environment() -> Result<()> {
    let folder = folder();
    let stamp = folder.join("made-from.txt");
    let requirements = fs::read_to_string(workspace::root().join(REQUIREMENTS))
        .with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == requirements) {
        return Ok(());
    }

    announce("installing the OpenAI client and the kernels' compiler into target/python");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(folder.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(REQUIREMENTS)
        .current_dir(workspace::root()))?;
    // Last, so that an interrupted installation is not taken for a finished one.
    fs::write(&stamp, requirements).with_context(|| format!("cannot write {}", stamp.display()))
}

fn folder() -> PathBuf {
    workspace::target().join("python")
}
