//! Where a report is kept.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use bench::{Body, Document};
use clap::Args;

/// What is written beside what is shown.
#[derive(Args, Clone, Debug)]
pub(super) struct KeepArgs {
    /// Write the report as JSON, too: for scripts, and for `baton bench compare`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Its value stays out of files.
const SECRET: &str = "--api-key";

// === impl KeepArgs ===

impl KeepArgs {
    /// Sees that the file can have a place, before anything is measured.
    ///
    /// # Errors
    /// If there is no such folder.
    pub(super) fn check(&self) -> Result<()> {
        check("--json", self.json.as_deref())
    }

    /// Writes the document, if that is wanted.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn write(&self, document: &Document) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| document.write(path))
    }
}

/// Sees that a flag's file can have a place.
///
/// # Errors
/// If there is no such folder.
pub(super) fn check(flag: &str, path: Option<&Path>) -> Result<()> {
    let Some(folder) = path.and_then(Path::parent) else { return Ok(()) };
    let is_there = folder.as_os_str().is_empty() || folder.is_dir();
    ensure!(is_there, "{flag}: there is no folder {}", folder.display());
    Ok(())
}

/// A report of this call.
pub(super) fn document(body: Body) -> Document {
    // Where the program lies is no part of it.
    let args = std::iter::once("baton".to_owned()).chain(std::env::args().skip(1));
    Document::new(without_secrets(args), body)
}

/// A command line as it may be shown to anybody.
fn without_secrets(args: impl Iterator<Item = String>) -> String {
    let mut is_secret = false;
    let shown = args.map(|arg| {
        let follows = std::mem::replace(&mut is_secret, arg == SECRET);
        match arg.strip_prefix(SECRET) {
            _ if follows => "...".to_owned(),
            Some(value) if value.starts_with('=') => format!("{SECRET}=..."),
            _ => arg,
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_out_of_files() {
        let shown = |line: &str| without_secrets(line.split(' ').map(str::to_owned));
        let table = [
            ("baton bench serve --api-key k --rate 4", "baton bench serve --api-key ... --rate 4"),
            ("baton bench serve --api-key=k", "baton bench serve --api-key=..."),
            ("baton bench engine --shape tiny", "baton bench engine --shape tiny"),
        ];
        for (line, want) in table {
            assert_eq!(shown(line), want);
        }
    }
}
