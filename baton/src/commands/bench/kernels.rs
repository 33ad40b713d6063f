//! `baton bench kernels`: is every kernel right, and how near is it to its bound?

use anyhow::{Context as _, Result, ensure};
use bench::Body;
use bench::kernels::{Extent, KernelBench};
use clap::Args;

use super::device::DeviceArgs;
use super::keep::{self, KeepArgs};
use crate::out;

/// `baton bench kernels`.
#[derive(Args, Clone, Debug)]
pub(super) struct KernelArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Only these: rows, products, attention, sampling, pages or softmax.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Same seed, same numbers. Default: another each time, which is printed.
    #[arg(long)]
    seed: Option<u64>,
    /// Check, and don't time.
    #[arg(long)]
    quick: bool,
    /// Check a few small cases of Baton's own kernels: what a sanitizer gets through.
    #[arg(long, conflicts_with = "quick")]
    check: bool,
    #[command(flatten)]
    keep: KeepArgs,
}

/// Runs the command.
///
/// # Errors
/// If a kernel is wrong, there is no usable GPU, or the report can't be written.
pub(super) async fn run(args: KernelArgs) -> Result<()> {
    args.keep.check()?;
    let cuda = args.device.cuda()?.context("kernels run on a GPU, and there is none here")?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = now.map_or(0, |since| since.as_micros() as u64);
    let seed = args.seed.unwrap_or(fresh);
    out::line(format_args!("seed {seed}"))?;
    let extent = match (args.check, args.quick) {
        (true, _) => Extent::Small,
        (false, true) => Extent::Checked,
        (false, false) => Extent::Timed,
    };
    let bench = KernelBench { cuda, only: args.only, seed, extent };
    // Whoever reads only the beginning has what he wants; what is wrong is told at the end.
    let run = move || bench.run(&mut |row| drop(out::line(row)));
    let report = tokio::task::spawn_blocking(run).await??;
    let _ = out::line(&report);
    let wrong = report.wrong().count();
    args.keep.write(&keep::document(Body::Kernels(report)))?;
    ensure!(wrong == 0, "{wrong} cases give other numbers than the CPU");
    Ok(())
}
