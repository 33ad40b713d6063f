//! `cargo xtask release`: what is shipped, in one archive.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process::{announce, run as run_command, shown};
use crate::{up, workspace};

mod notices;

/// What goes beside the program.
const PAPERS: [&str; 3] = ["README.md", "CHANGELOG.md", "LICENSE"];

/// Of all crates of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the program with all optimisation, and packs it with what has to come along into
/// `target/dist/baton-VERSION-HOST.tar.gz`.
///
/// # Errors
/// If it can't be built, doesn't start, or can't be packed.
pub(crate) fn run() -> Result<()> {
    let program = up::build("release")?;
    check(&program)?;
    let host = workspace::host()?;
    let (dist, name) = (workspace::target().join("dist"), format!("baton-{VERSION}-{host}"));
    let folder = dist.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    copy(&program, &folder.join("baton"))?;
    for paper in PAPERS {
        copy(&workspace::root().join(paper), &folder.join(paper))?;
    }
    announce("collecting the licences of what is linked in");
    let notices = folder.join("THIRD-PARTY.txt");
    fs::write(&notices, notices::of("baton", &host)?)
        .with_context(|| notices.display().to_string())?;
    pack(&dist, &name)
}

/// What is shipped has at least started once, and is what its name says.
fn check(program: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("--version");
    let told = command.output().with_context(|| shown(&command))?;
    let told = String::from_utf8_lossy(&told.stdout);
    ensure!(told.contains(VERSION), "`{}` says {told:?}, not {VERSION}", shown(&command));
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

fn pack(dist: &Path, name: &str) -> Result<()> {
    let archive = dist.join(format!("{name}.tar.gz"));
    run_command(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(dist).arg(name))?;
    let bytes = fs::metadata(&archive).with_context(|| archive.display().to_string())?.len();
    announce(&format!("{}, {:.1} MB", archive.display(), bytes as f64 / 1e6));
    Ok(())
}
