//! Runs seeds, each in a process of its own.

#![deny(unsafe_code)]
// Talking to the terminal is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod herd;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use simulation::entropy;
use simulation::plan::Plan;
use simulation::planted::Bug;
use simulation::watchdog::Progress;
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
    /// Prints what the seeds came through, and fails if there is something that none did.
    #[arg(long)]
    coverage: bool,
    /// The longest that a seed may take, in real seconds.
    #[arg(long, default_value_t = 300)]
    limit_s: u64,
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
    let (plan, progress) = (Plan::new(seed, cli.bug), Progress::default());
    let planned = plan.clone();
    progress.watch(Duration::from_secs(cli.limit_s), move |stuck| {
        println!("{planned}  found: {stuck}");
    });
    let outcome = World::new(plan.clone(), progress).run();
    println!("seed {seed}: digest {:016x}, {}/{} done", outcome.digest, outcome.done, outcome.sent);
    for (what, times) in &outcome.coverage {
        println!("{}{what}: {times}", herd::CAME_THROUGH);
    }
    if outcome.findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{plan}");
    outcome.findings.iter().for_each(|finding| println!("  found: {finding}"));
    ExitCode::FAILURE
}
