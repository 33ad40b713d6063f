//! `baton`: the one command.

#![forbid(unsafe_code)]

mod advertise;
mod cli;
mod commands;
mod descriptors;
mod failure;
mod model;
mod out;
mod ports;
mod progress;
mod settings;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use words::Role;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let matches = settings::schema::teach(Cli::command()).get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    descriptors::raise();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ran = runtime.block_on(run(cli.command));
    // A line being read from the terminal must not hold the process.
    runtime.shutdown_background();
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<out::Unread>() => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => commands::up::run(args).await,
        Command::Router(args) => commands::router::run(args).await,
        Command::PrefillWorker(args) => commands::workers::run(args, Role::Prefill).await,
        Command::DecodeWorker(args) => commands::workers::run(args, Role::Decode).await,
        Command::Chat(args) => commands::chat::run(args).await,
        Command::Keys(args) => commands::keys::run(args),
        Command::Bench(args) => commands::bench::run(args).await,
        Command::Simulate(args) => commands::simulate::run(&args),
        Command::Certs(args) => commands::certs::run(&args),
        Command::Etcd(args) => commands::etcd::run(args).await,
        Command::Doctor => commands::doctor::run(),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let error = failure::one_line(error);
    out::note(format_args!("{} {error}", console::style("error:").for_stderr().red().bold()));
    ExitCode::FAILURE
}
