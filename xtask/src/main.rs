//! The verbs of the project: `cargo xtask up`, `test`, `sim`, `chaos`, `fuzz`, `check` and `bench`.
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
mod process;
mod python;
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
    /// Lists and runs benchmarks.
    ///
    /// Without a name it lists what there is. `serve` sends load to a running cluster and reports
    /// TTFT, TPOT and goodput; every other name is a criterion benchmark.
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
