//! Runs chaos for some minutes; `cargo xtask chaos` builds what it needs.

#![forbid(unsafe_code)]
// Talking to the terminal is what this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use baton_tests::chaos::{self, Config, Tally};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// How often progress is told where no terminal draws it.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Runs a real cluster under faults, and checks every answer.
#[derive(Debug, Parser)]
struct Cli {
    /// How long.
    #[arg(long, default_value_t = 1)]
    minutes: u64,
    /// Chooses all faults and requests; without it, one from the time of day.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(chaos::fresh_seed);
    let config = Config::minutes(seed, cli.minutes);
    let tally = Arc::new(Tally::default());
    let report = tokio::select! {
        report = chaos::run(&config, tally.clone()) => report,
        () = watch(&tally) => return ExitCode::FAILURE,
    };
    println!("seed {seed}, {} minutes\n{report}", cli.minutes);
    if report.is_flawless() {
        return ExitCode::SUCCESS;
    }
    println!("again: cargo xtask chaos --minutes {} --seed {seed}", cli.minutes);
    ExitCode::FAILURE
}

/// Tells how far it is, until it is dropped.
async fn watch(tally: &Tally) {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{elapsed} {msg}").expect("a template"));
    let mut second = tokio::time::interval(Duration::from_secs(1));
    for tick in 1.. {
        second.tick().await;
        bar.set_message(tally.counts().to_string());
        bar.tick();
        if bar.is_hidden() && tick % TOLD_EVERY.as_secs() == 0 {
            eprintln!("{}", tally.counts());
        }
    }
}
