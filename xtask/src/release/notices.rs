//! The notices of others whose code is linked in: their licences ask for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::process::{cargo, shown};
use crate::workspace;

/// How the names of files with licences and notices begin.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "copyright", "unlicense"];

/// One crate of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Linked {
    /// Name and version, e.g. `serde 1.0.0`.
    name: String,
    /// As its manifest has it, e.g. `MIT OR Apache-2.0`.
    licence: String,
}

/// The texts of all crates that `package` is made of on `host`, each text once, under the names of those whose
/// it is.
///
/// # Errors
/// If cargo doesn't tell them, or their sources are not where cargo keeps them.
pub(super) fn of(package: &str, host: &str) -> Result<String> {
    let mut by_text: BTreeMap<String, Vec<Linked>> = BTreeMap::new();
    for linked in all(package, host)? {
        let mut texts = texts(&source(&linked)?)?;
        if texts.is_empty() {
            texts.push("The package comes without a text of its own.".to_owned());
        }
        for text in texts {
            by_text.entry(text).or_default().push(linked.clone());
        }
    }
    let mut written =
        String::from("Code of others that this program contains, and their licences.\n");
    for (text, whose) in by_text {
        let names = whose.iter().map(|linked| format!("{} ({})", linked.name, linked.licence));
        let names = names.collect::<Vec<_>>().join("\n");
        let rule = "-".repeat(80);
        write!(written, "\n{rule}\n{names}\n{rule}\n\n{}\n", text.trim_end())?;
    }
    Ok(written)
}

fn all(package: &str, host: &str) -> Result<Vec<Linked>> {
    let mut command = cargo(["tree", "--locked", "--edges", "normal", "--prefix", "none"]);
    command.args(["--package", package, "--target", host, "--format", "{p}|{l}"]);
    let told = command.output().with_context(|| shown(&command))?;
    let why = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.success(), "`{}`: {why}", shown(&command));
    Ok(parse(&String::from_utf8_lossy(&told.stdout)))
}

/// - `told`: lines like `serde v1.0.0|MIT`; behind a version is what kind of crate it is, or a path if it is ours.
fn parse(told: &str) -> Vec<Linked> {
    let mut all: Vec<Linked> = told
        .lines()
        .filter_map(|line| {
            let (package, licence) = line.split_once('|')?;
            let mut words = package.split(' ');
            let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
            let is_ours = words.any(|word| word.starts_with("(/"));
            let licence = licence.trim_end_matches(" (*)").to_owned();
            (!is_ours).then(|| Linked { name: format!("{name} {version}"), licence })
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Where cargo has unpacked it.
fn source(linked: &Linked) -> Result<PathBuf> {
    let folder = workspace::cargo_home()?.join("registry/src");
    let name = linked.name.replace(' ', "-");
    let registries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut places = registries.filter_map(|registry| Some(registry.ok()?.path().join(&name)));
    places
        .find(|place| place.is_dir())
        .with_context(|| format!("no {name} in {}", folder.display()))
}

fn texts(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let name = name.to_string_lossy().to_lowercase();
        if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            let text = fs::read(&path).with_context(|| path.display().to_string())?;
            texts.push(String::from_utf8_lossy(&text).replace("\r\n", "\n"));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_left_out_and_others_named_once() {
        let told = "\
baton v0.1.0 (/somewhere/baton)|Apache-2.0
serde v1.0.2|MIT OR Apache-2.0
serde_derive v1.0.2 (proc-macro)|MIT OR Apache-2.0

serde v1.0.2|MIT OR Apache-2.0 (*)
";
        let licence = "MIT OR Apache-2.0".to_owned();
        let named = |name: &str| Linked { name: name.to_owned(), licence: licence.clone() };
        assert_eq!(parse(told), [named("serde 1.0.2"), named("serde_derive 1.0.2")]);
    }
}
