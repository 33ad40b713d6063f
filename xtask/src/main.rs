//! The verbs of the project: `cargo xtask up`, `test`, `check`, `bench`, and whatever else `cargo xtask help` lists.
//!
//! They need nothing but cargo and a C linker: what else is missing, they install and say so. CI
//! runs exactly these.

#![forbid(unsafe_code)]
// Talking to the terminal is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod audit;
mod bench;
mod chaos;
mod check;
mod deny;
mod fuzz;
mod gpu;
mod hooks;
mod miri;
mod process;
mod python;
mod release;
mod sim;
mod test;
mod tools;
mod up;
mod workspace;

/// Builds, runs and checks Baton. Each verb installs what it needs, and says so.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask up                        a whole cluster in one process, on this machine
  cargo xtask up -- --help              what `baton up` can be told
  cargo xtask test                      everything, as CI runs it
  cargo xtask test -- anchor            tests with `anchor` in their names
  cargo xtask test --gpu                those that need a GPU, which must be there
  cargo xtask check                     format, lints, dependencies, docs
  cargo xtask sim --seeds 1000          clusters in virtual time, on a network that fails
  cargo xtask chaos --minutes 30        a real cluster whose processes are killed, stopped, cut off
  cargo xtask fuzz --target chat        what no client would send, to what takes it
  cargo xtask bench                     what can be measured";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Builds Baton and starts a whole cluster in one process: no GPU, no etcd.
    ///
    /// Installs `protoc` if it is missing, builds the program without link-time optimisation and runs
    /// `baton up` with the arguments given after the verb. The first build takes minutes, the next ones
    /// seconds. What is shipped is built by `cargo build --release`.
    Up(up::Args),
    /// Runs every test, those with real processes, etcd and the OpenAI client included.
    ///
    /// Installs `protoc` and `etcd` from the system's packages and the OpenAI client into
    /// `target/python`, then runs `cargo test --workspace`. Tests that need a GPU count as skipped where
    /// there is none; `--gpu` insists on them.
    Test(test::Args),
    /// Checks what tests don't: format, lints, licenses and sources of dependencies, docs.
    ///
    /// Goes through every step, also after one has failed, and ends with a table of them.
    Check(check::Args),
    /// Looks dependencies up in the list of known vulnerabilities; needs the network.
    Audit,
    /// Has git run `check --quick` before every commit of this clone.
    Hooks(hooks::Args),
    /// Simulates clusters in virtual time, on a network that fails by a seed.
    ///
    /// Runs the real router, workers and membership with a scripted model. A seed that fails is printed
    /// with what went wrong and the command that runs it again.
    Sim(sim::Args),
    /// Kills, stops and cuts off the processes of a real cluster, and checks every answer.
    ///
    /// Two routers, four workers with a tiny model and an etcd, under faults chosen by a seed. Ends with a table
    /// of requests, faults, and what the processes took of the machine; fails if an answer was wrong, lost
    /// or late, or if a process has grown.
    Chaos(chaos::Args),
    /// Tries inputs that nobody would send on everything that strangers reach.
    ///
    /// Builds all code with counters that tell libFuzzer what an input reaches, and lets it look for
    /// inputs that break a promise, from `fuzz/corpus` on. What it finds is in `target/fuzz/found`.
    Fuzz(fuzz::Args),
    /// Runs what threads share in Miri, which watches every access and changes who goes first.
    ///
    /// The pool of blocks and the outboxes, under many schedules. Needs rustup, and installs a nightly Rust with
    /// Miri through it.
    Miri(miri::Args),
    /// Builds the program as it is shipped, and packs it into `target/dist`.
    ///
    /// With link-time optimisation, and with the licences of all that is linked in.
    Release,
    /// Lists and runs benchmarks.
    ///
    /// Without a name it lists what there is: what `baton bench` measures, built as it is shipped, and
    /// criterion benchmarks.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Up(args) => up::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Audit => audit::run(),
        Verb::Hooks(args) => hooks::run(&args),
        Verb::Sim(args) => sim::run(&args),
        Verb::Chaos(args) => chaos::run(&args),
        Verb::Fuzz(args) => fuzz::run(&args),
        Verb::Miri(args) => miri::run(&args),
        Verb::Release => release::run(),
        Verb::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", console::style("error:").red().bold());
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Files that tell people and machines what to run.
    fn files() -> Vec<PathBuf> {
        let names = [
            ".ci/run",
            ".devcontainer/devcontainer.json",
            ".githooks/pre-commit",
            ".github/pull_request_template.md",
            "CONTRIBUTING.md",
            "README.md",
            "SECURITY.md",
        ];
        let root = workspace::root();
        let workflows = fs::read_dir(root.join(".github/workflows")).expect("workflows");
        let workflows = workflows.map(|entry| entry.expect("a workflow").path());
        names.map(|name| root.join(name)).into_iter().chain(workflows).collect()
    }

    /// The verbs in `text` with their arguments: each ends with its line, where its quotes do, or where a table
    /// or the next command begins.
    fn commands(text: &str) -> impl Iterator<Item = &str> {
        let ends = ['`', '"', '#', '\n'];
        let commands = text.split("cargo xtask ").skip(1);
        commands.map(move |rest| rest.split(ends).next().unwrap_or(rest)).map(|command| {
            let end = ["  ", " &&", " |"].iter().filter_map(|end| command.find(end)).min();
            command[..end.unwrap_or(command.len())].trim()
        })
    }

    fn check(file: &Path, command: &str) {
        // As in `cargo xtask <verb>`, and `N` where anybody's number goes.
        if command.starts_with('<') {
            return;
        }
        let words = command.split(' ').map(|word| if word == "N" { "1" } else { word });
        let parsed = Cli::try_parse_from(["cargo xtask"].into_iter().chain(words));
        let helps = parsed.as_ref().is_err_and(|error| error.exit_code() == 0);
        assert!(helps || parsed.is_ok(), "{}: `cargo xtask {command}`", file.display());
    }

    #[test]
    fn every_command_that_is_written_down_is_one() {
        for file in files() {
            let text =
                fs::read_to_string(&file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
            commands(&text).for_each(|command| check(&file, command));
        }
    }

    #[test]
    fn the_verbs_are_found_in_what_is_written() {
        let text = "- run: cargo xtask check\n| a | `cargo xtask sim --seeds 3`, else |\ncargo xtask up       build";
        assert_eq!(commands(text).collect::<Vec<_>>(), ["check", "sim --seeds 3", "up"]);
    }
}
