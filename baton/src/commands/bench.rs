//! `baton bench`: measures a running cluster, one engine, or its kernels, and compares what was measured.

mod compare;
mod device;
mod engine;
pub(crate) mod keep;
mod kernels;
mod serve;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Measures a running cluster, one engine, or its kernels.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Sends load to an OpenAI endpoint and reports TTFT, TPOT, ITL and goodput, at one rate or at several.
    Serve(Box<serve::ServeArgs>),
    /// Runs one engine, without a cluster, and compares it with what the hardware allows.
    Engine(Box<engine::EngineArgs>),
    /// Checks every kernel against the CPU, and times it.
    Kernels(Box<kernels::KernelArgs>),
    /// Lays two reports that --json wrote side by side.
    Compare(compare::CompareArgs),
}

/// Runs the command.
///
/// # Errors
/// If the endpoint can't be reached, the device can't be used, a file can't be read or written, or what was
/// measured isn't good enough.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    match args.what {
        What::Serve(args) => serve::run(&args).await,
        What::Engine(args) => engine::run(*args).await,
        What::Kernels(args) => kernels::run(*args).await,
        What::Compare(args) => compare::run(&args),
    }
}
