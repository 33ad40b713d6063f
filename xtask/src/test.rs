//! `cargo xtask test`: set-up, then every test there is.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use console::style;

use crate::process::{announce, cargo, shown_time, timed};
use crate::{gpu, python, tools};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install nothing: the tools are there.
    #[arg(long)]
    skip_setup: bool,
    /// Install what the tests need, and run none.
    #[arg(long, conflicts_with = "skip_setup")]
    setup_only: bool,
    /// Only the tests that need a GPU, which fail where there is none. Without this they are run where there
    /// is one, and else count as skipped.
    #[arg(long, conflicts_with = "package")]
    gpu: bool,
    /// Test this package only; may be given more than once.
    #[arg(long, short, value_name = "NAME")]
    package: Vec<String>,
    /// Passed on to the test programs, e.g. a part of a test's name, or `--nocapture`.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// What the test programs' closing lines add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    programs: usize,
    passed: usize,
    failed: usize,
    ignored: usize,
    /// The names under `failures:`.
    failures: Vec<String>,
}

/// Sets up and runs the tests.
///
/// # Errors
/// If a tool cannot be installed, the build fails, or a test fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.skip_setup {
        tools::require(&[&tools::PROTOC, &tools::ETCD, &tools::PYTHON])?;
        python::require_environment()?;
    }
    if args.setup_only {
        return Ok(());
    }
    announce("building and running the tests");
    let (outcome, time) = timed(|| run_tests(args));
    let (succeeded, tally) = outcome?;
    tally.print(time);
    if !succeeded {
        bail!("the tests failed");
    }
    Ok(())
}

/// Runs all programs, and then those whose tests are ignored for want of a GPU, where there is one.
fn run_tests(args: &Args) -> Result<(bool, Tally)> {
    let mut tally = Tally::default();
    let mut succeeded = true;
    if !args.gpu {
        succeeded &= follow(&mut everything(args), &mut tally)?;
    }
    let wants_engine = args.package.is_empty() || args.package.iter().any(|name| name == "engine");
    if args.gpu || wants_engine && gpu::is_there() {
        announce("running the tests that need a GPU");
        succeeded &= follow(&mut on_a_gpu(args), &mut tally)?;
    }
    Ok((succeeded, tally))
}

/// One invocation for the whole workspace, so that everything is compiled once: the end-to-end
/// tests start the `baton` binary that this very build makes (it does so for `baton/tests`).
fn everything(args: &Args) -> Command {
    let mut command = cargo(["test", "--no-fail-fast"]);
    if args.package.is_empty() {
        command.arg("--workspace");
    } else {
        // The end-to-end tests need the command's binary as well.
        command.args(args.package.iter().flat_map(|name| ["--package", name]));
    }
    command.arg("--");
    with_args(command, args)
}

/// Of the whole workspace too, for the same features of every dependency. Nothing else is ignored in the
/// libraries' own tests, and nothing in the other programs runs without a GPU.
fn on_a_gpu(args: &Args) -> Command {
    let mut command = cargo(["test", "--no-fail-fast", "--workspace", "--lib", "--test", "cuda*"]);
    command.args(["--", "--ignored"]);
    with_args(command, args)
}

fn with_args(mut command: Command, args: &Args) -> Command {
    command.args(&args.args);
    if console::colors_enabled() {
        command.args(["--color", "always"]);
    }
    command
}

/// Runs `cargo test`, passing its output through while counting. Returns whether it succeeded.
fn follow(command: &mut Command, tally: &mut Tally) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start `cargo test`")?;
    let output = child.stdout.take().context("`cargo test` has no output")?;
    relay(BufReader::new(output), &mut std::io::stdout().lock(), tally)?;
    let status = child.wait().context("cannot wait for `cargo test`")?;
    Ok(status.success())
}

/// Copies lines as they come and adds up the closing ones.
fn relay(mut from: impl BufRead, to: &mut impl Write, tally: &mut Tally) -> Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // By bytes: a test may print what is not UTF-8.
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        to.write_all(&line)?;
        to.flush()?;
        tally.read(&console::strip_ansi_codes(&String::from_utf8_lossy(&line)));
    }
}

// === impl Tally ===

impl Tally {
    /// Takes up one line of a test program's output.
    fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(name) =
            line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        self.programs += 1;
        let counts = counts.split_once(". ").map_or("", |(_, counts)| counts);
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else { continue };
            let number: usize = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn print(&self, time: Duration) {
        println!();
        for name in &self.failures {
            println!("{} {name}", style("FAILED").red().bold());
        }
        println!("{} test programs in {}", self.programs, shown_time(time));
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.ignored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 3 tests
test pool::a_block_returns ... ok
test pool::b ... FAILED
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

running 1 test
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 2.10s
";

    #[test]
    fn closing_lines_add_up() {
        let (mut copied, mut tally) = (Vec::new(), Tally::default());
        relay(OUTPUT.as_bytes(), &mut copied, &mut tally).expect("reading from memory");
        assert_eq!(copied, OUTPUT.as_bytes(), "everything is passed through");
        let want = Tally {
            programs: 2,
            passed: 5,
            failed: 1,
            ignored: 1,
            failures: vec!["pool::b".to_owned()],
        };
        assert_eq!(tally, want);
    }

    #[test]
    fn colours_do_not_hide_a_result() {
        let line = "test result: \u{1b}[32mok\u{1b}[m. 7 passed; 0 failed; 0 ignored; 0 measured\n";
        let mut tally = Tally::default();
        relay(line.as_bytes(), &mut Vec::new(), &mut tally).expect("reading from memory");
        assert_eq!((tally.programs, tally.passed), (1, 7));
    }
}
