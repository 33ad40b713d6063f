//! Runs seeds, each in a process of its own.

#![deny(unsafe_code)]
// Talking to the terminal is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod herd;

use std::process::ExitCode;

use clap::Parser;
use simulation::entropy;
use simulation::plan::Plan;
use simulation::planted::Bug;
use simulation::world::World;

/// Runs a cluster in virtual time on a network that fails, by seeds.
#[derive(Debug, Parser)]
struct Cli {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first of them; without it, one from the time of day.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs at once; as many as there are cores without it.
    #[arg(long)]
    jobs: Option<usize>,
    /// A bug to plant, to see it found: stops at the first seed that does.
    #[arg(long)]
    bug: Option<Bug>,
    /// Runs the one seed in this very process, and prints its digest.
    #[arg(long, requires = "seed")]
    here: bool,
    /// What to log, with `--here`, e.g. `debug` or `simulation=info`.
    #[arg(long, default_value = "off")]
    log: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match (cli.here, cli.seed) {
        (true, Some(seed)) => here(seed, &cli),
        _ => herd::run(&cli),
    }
}

/// Runs a seed to its end.
fn here(seed: u64, cli: &Cli) -> ExitCode {
    entropy::seed(seed);
    let filter = tracing_subscriber::EnvFilter::new(&cli.log);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    let plan = Plan::new(seed, cli.bug);
    let outcome = World::new(plan.clone()).run();
    println!("seed {seed}: digest {:016x}, {}/{} done", outcome.digest, outcome.done, outcome.sent);
    if outcome.findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{plan}");
    outcome.findings.iter().for_each(|finding| println!("  found: {finding}"));
    ExitCode::FAILURE
}
