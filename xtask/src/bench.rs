//! `cargo xtask bench`: what can be measured, and measuring it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use console::style;

use crate::process::{announce, cargo, run as run_command};
use crate::{tools, up, workspace};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to run, as the list names it; `all` runs every criterion benchmark.
    name: Option<String>,
    /// Passed on, e.g. a criterion filter, or the options of `baton bench serve`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// What `baton bench` can do.
const COMMANDS: [(&str, &str); 4] = [
    ("serve", "load on an OpenAI endpoint, at a rate or a sweep of them: TTFT, TPOT, ITL, goodput"),
    (
        "engine",
        "one engine against what the hardware allows: prompts with rests and without, decoding",
    ),
    ("kernels", "every kernel of a GPU against the CPU, and its time"),
    ("compare", "two reports of one of these (`--json`) side by side"),
];

/// One file under a crate's `benches/`.
#[derive(Debug, PartialEq, Eq)]
struct Benchmark {
    /// The crate's folder and package name.
    package: String,
    /// The file's name.
    name: String,
    /// The first line of its documentation.
    about: String,
}

/// Lists the benchmarks, or runs one.
///
/// # Errors
/// If there is none of that name, or it fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let benchmarks = find(workspace::root())?;
    match args.name.as_deref() {
        None => {
            list(&benchmarks);
            Ok(())
        }
        Some(name) if COMMANDS.iter().any(|(known, _)| *known == name) => baton(name, &args.args),
        Some("all") => benchmarks.iter().try_for_each(|benchmark| benchmark.run(&args.args)),
        Some(name) => match benchmarks.iter().find(|benchmark| benchmark.answers_to(name)) {
            Some(benchmark) => benchmark.run(&args.args),
            None => bail!("no benchmark `{name}`; `cargo xtask bench` lists them"),
        },
    }
}

fn list(benchmarks: &[Benchmark]) {
    let show = |name: &str, about: &str| println!("  {:<28} {about}", style(name).bold());
    println!("cargo xtask bench NAME [ARGS]\n");
    println!("With the program, as it is shipped (`NAME --help`):");
    COMMANDS.iter().for_each(|(name, about)| show(name, about));
    println!("\nOn this machine, with criterion:");
    for benchmark in benchmarks {
        show(&format!("{}/{}", benchmark.package, benchmark.name), &benchmark.about);
    }
    show("all", "every criterion benchmark");
}

/// Runs `baton bench NAME`.
fn baton(name: &str, args: &[String]) -> Result<()> {
    let mut command = Command::new(up::build("release")?);
    up::become_it(command.args(["bench", name]).args(args))
}

/// The `benches/*.rs` of every crate, in order of their names.
fn find(root: &Path) -> Result<Vec<Benchmark>> {
    let mut found = Vec::new();
    for folder in entries(root)?.into_iter().map(|folder| folder.join("benches")) {
        if !folder.is_dir() {
            continue;
        }
        found.extend(entries(&folder)?.iter().filter_map(|file| Benchmark::at(file)));
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        .with_context(|| format!("cannot list {}", folder.display()))?;
    paths.sort();
    Ok(paths)
}

// === impl Benchmark ===

impl Benchmark {
    /// The benchmark in `file`, which is `{crate}/benches/{name}.rs`.
    fn at(file: &Path) -> Option<Self> {
        if file.extension()? != "rs" {
            return None;
        }
        let name = file.file_stem()?.to_str()?.to_owned();
        let package = file.parent()?.parent()?.file_name()?.to_str()?.to_owned();
        let source = fs::read_to_string(file).ok()?;
        let about = source.lines().find_map(|line| line.strip_prefix("//! ")).unwrap_or("");
        Some(Self { package, name, about: about.to_owned() })
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name == name || name.split_once('/') == Some((&self.package, &self.name))
    }

    fn run(&self, args: &[String]) -> Result<()> {
        tools::require(&[&tools::PROTOC])?;
        announce(&format!("{}/{}", self.package, self.name));
        let mut command = cargo(["bench", "--package", &self.package, "--bench", &self.name]);
        run_command(command.arg("--").args(args))
    }
}
