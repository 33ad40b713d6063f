//! `cargo xtask fuzz`: inputs that nobody would send, to everything that strangers reach.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use console::style;

use crate::process::{announce, cargo, run as run_command, shown_time, timed};
use crate::{tools, workspace};

/// What compiles every crate with counters that the fuzzer reads. No sanitizer: hardly any code here is
/// `unsafe`, and what there is no input reaches.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// What ends a run that a target's own bounds, which are far tighter, can't end: seconds and MiB.
const HANGS_AFTER_S: u32 = 30;
const MEMORY_MIB_MAX: u32 = 4096;
/// Bytes of an input. Targets cut what is too long for them.
const INPUT_BYTES_MAX: u32 = 8 << 10;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this way in; may be given more than once.
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// Inputs to try on each.
    #[arg(long, default_value_t = 100_000)]
    runs: u64,
    /// Time for each, rather than a number of inputs.
    #[arg(long, value_name = "S", conflicts_with = "runs")]
    seconds: Option<u64>,
}

/// How a target fared.
struct Outcome {
    target: String,
    /// The fuzzer's last word: inputs tried, code reached.
    last: String,
    found: bool,
    time: Duration,
}

/// Builds the targets and tries them, one after the other.
///
/// # Errors
/// If they can't be built, or an input breaks a promise.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::require(&[&tools::PROTOC, &tools::CXX])?;
    let targets = targets(&args.target)?;
    announce("building with coverage (the first time, all of it)");
    let program = build()?;
    let outcomes = targets.into_iter().map(|target| fuzz(&program, target, args));
    summarise(&outcomes.collect::<Result<Vec<_>>>()?)
}

/// All that have a corpus, or those that are wanted.
fn targets(wanted: &[String]) -> Result<Vec<String>> {
    let folder = folder().join("corpus");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut all: Vec<String> = names.collect();
    all.sort();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("no target `{unknown}`; there are {}", all.join(", "));
    }
    all.retain(|name| wanted.is_empty() || wanted.contains(name));
    Ok(all)
}

fn build() -> Result<PathBuf> {
    let host = workspace::host()?;
    let mut command = cargo(["build", "--package", "baton-fuzz", "--features", "libfuzzer"]);
    command.args(["--profile", "fuzz", "--target", &host]);
    // With a target of their own, flags don't reach build scripts, which have no fuzzer in them.
    run_command(command.env("RUSTFLAGS", COVERAGE.join(" ")))?;
    Ok(workspace::target().join(host).join("fuzz/baton-fuzz"))
}

fn fuzz(program: &Path, target: String, args: &Args) -> Result<Outcome> {
    announce(&target);
    let (known, grown) = (folder().join("corpus").join(&target), output("corpus", &target)?);
    let found = output("found", &target)?;
    let mut command = Command::new(program);
    // The first takes what is new.
    command.args([&grown, &known]);
    command.arg(match args.seconds {
        Some(seconds) => format!("-max_total_time={seconds}"),
        None => format!("-runs={}", args.runs),
    });
    command.arg(format!("-timeout={HANGS_AFTER_S}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.arg(format!("-artifact_prefix={}/", found.display()));
    command.args(dictionary(&target)?.map(|file| format!("-dict={}", file.display())));
    command.args(["-print_final_stats=1", "-ignore_remaining_args=1", &target]).arg(&grown);
    let (outcome, time) = timed(|| follow(&mut command));
    let (succeeded, last) = outcome?;
    Ok(Outcome { target, last, found: !succeeded, time })
}

/// Runs the fuzzer, and passes on what it says.
fn follow(command: &mut Command) -> Result<(bool, String)> {
    let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start the fuzzer")?;
    let said = child.stderr.take().context("the fuzzer has no output")?;
    let mut last = String::new();
    for line in BufReader::new(said).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        eprintln!("{line}");
        if line.starts_with('#') && line.contains("cov:") {
            last = line;
        }
    }
    Ok((child.wait()?.success(), last))
}

/// The words of a target: the file that names it in its first line.
fn dictionary(target: &str) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder().join("dictionaries"))? {
        let file = entry?.path();
        let text = std::fs::read_to_string(&file)?;
        let mut named = text.lines().next().unwrap_or_default().split_whitespace();
        if named.any(|name| name == target) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn summarise(outcomes: &[Outcome]) -> Result<()> {
    println!();
    for Outcome { target, last, found, time } in outcomes {
        let mark = if *found { style("FOUND").red().bold() } else { style("ok   ").green() };
        println!("{mark}  {target:<14} {:<12} {last}", shown_time(*time));
    }
    let found: Vec<&str> =
        outcomes.iter().filter(|it| it.found).map(|it| it.target.as_str()).collect();
    if !found.is_empty() {
        bail!(
            "{}: the input is in {}; once it is mended, it belongs into fuzz/corpus",
            found.join(", "),
            workspace::target().join("fuzz/found").display()
        );
    }
    Ok(())
}

fn folder() -> PathBuf {
    workspace::root().join("fuzz")
}

/// A folder for what comes of fuzzing.
fn output(what: &str, target: &str) -> Result<PathBuf> {
    let folder = workspace::target().join("fuzz").join(what).join(target);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
