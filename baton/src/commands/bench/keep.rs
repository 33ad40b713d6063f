//! Where a report is kept.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use bench::{Body, Document};
use clap::Args;

/// What is written beside what is shown.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeepArgs {
    /// Write the report as JSON, too: for scripts, and for `baton bench compare`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Its value stays out of files.
const SECRET: &str = "--api-key";

// === impl KeepArgs ===

impl KeepArgs {
    /// Sees that the file can be written, before anything is measured.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_beside("", None)
    }

    /// Sees that this file and another flag's can be written, both.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_beside(&self, flag: &str, other: Option<&Path>) -> Result<()> {
        let places = [place("--json", self.json.as_deref())?, place(flag, other)?];
        let is_one = places[0].is_some() && places[0] == places[1];
        ensure!(!is_one, "--json and {flag} name one file: the second would replace the first");
        Ok(())
    }

    /// Writes the document, if that is wanted.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn write(&self, document: &Document) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| document.write(path))
    }
}

/// Where a flag's file will be, whatever it is called.
///
/// # Errors
/// If it can't be written there.
fn place(flag: &str, path: Option<&Path>) -> Result<Option<PathBuf>> {
    let Some(path) = path else { return Ok(None) };
    ensure!(path != Path::new("-"), "{flag}: - is no file; ./- is one of this name");
    ensure!(!path.is_dir(), "{flag}: {} is a folder", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "{flag}: there is no folder {}", folder.display());
    let is_new = !path.exists();
    try_to_write(path).with_context(|| format!("{flag}: can't write {}", path.display()))?;
    let place = path.canonicalize()?;
    if is_new {
        std::fs::remove_file(path)?;
    }
    Ok(Some(place))
}

/// Writes nothing, which tells whether something could be written: a full device says so, too.
fn try_to_write(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write(&[]).map(drop)
}

/// A report of this call.
pub(crate) fn document(body: Body) -> Document {
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
    fn what_cannot_be_written_is_found_before_anything_is_measured() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str| dir.path().join(name);
        let keep = |json: PathBuf| KeepArgs { json: Some(json) };
        let (a, b) = (file("a.json"), file("b.html"));
        std::fs::write(&b, "an older one").expect("a file");
        keep(a.clone()).check_beside("--html", Some(&b)).expect("two files");
        assert!(!a.exists(), "nothing is left behind");
        assert_eq!(std::fs::read_to_string(&b).expect("it is there"), "an older one");

        let why = |json: PathBuf| format!("{:#}", keep(json).check().expect_err("no file"));
        assert!(
            why(dir.path().to_owned()).contains("--json: ")
                && why(dir.path().into()).ends_with("is a folder")
        );
        assert!(why(file("no/a.json")).contains("there is no folder"));
        assert!(why("-".into()).contains("- is no file"));
        if Path::new("/dev/full").exists() {
            assert!(why("/dev/full".into()).contains("can't write /dev/full: No space left"));
        }
        let same = [a.clone(), dir.path().join(".").join("a.json")];
        for other in same {
            let why = keep(a.clone()).check_beside("--html", Some(&other)).expect_err("one file");
            assert!(why.to_string().starts_with("--json and --html name one file"), "{why}");
        }
    }

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
