//! `baton bench engine`: one engine against what the hardware allows.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use bench::engine::{EngineBench, Group, Progress};
use bench::{Body, ModelSource, Shape};
use clap::Args;

use super::device::DeviceArgs;
use super::keep::{self, KeepArgs};
use crate::out;

/// `baton bench engine`.
#[derive(Args, Clone, Debug)]
pub(super) struct EngineArgs {
    /// The model's shape, with random weights: llama-3.1-8b, qwen3-0.6b or tiny.
    #[arg(long, default_value = "llama-3.1-8b", conflicts_with = "model")]
    shape: Shape,
    /// A checkpoint's folder instead; its weights, or random ones where it has only config.json.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Measure only these, comma separated: start, attention, products, decode, prefill,
    /// mixed.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    only: Vec<Group>,
    /// Fewer repetitions.
    #[arg(long)]
    quick: bool,
    /// Same seed, same weights and prompts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Tokens of a step. Default: as for a prefill worker, 8448 on a GPU and 512 on the CPU.
    #[arg(long, value_name = "TOKENS")]
    batch_tokens_max: Option<u32>,
    #[command(flatten)]
    keep: KeepArgs,
}

/// Runs the command.
///
/// # Errors
/// If the device or the model can't be used, a step fails, or the report can't be written.
pub(super) async fn run(args: EngineArgs) -> Result<()> {
    args.keep.check()?;
    let cuda = args.device.cuda()?;
    check(&args.only, cuda.is_some())?;
    let bench = EngineBench {
        model: args.model.map_or(ModelSource::Shape(args.shape), ModelSource::Folder),
        cuda,
        only: args.only,
        quick: args.quick,
        seed: args.seed,
        batch_tokens_max: args.batch_tokens_max,
    };
    let report = tokio::task::spawn_blocking(move || {
        bench.run(&mut |progress| match progress {
            Progress::Note(text) => out::note(text),
            Progress::Row(row) => out::note(row),
        })
    })
    .await??;
    // Whoever reads only its beginning has what he wants.
    let _ = out::line(&report);
    args.keep.write(&keep::document(Body::Engine(report)))
}

/// Sees that there is what all of these are measured on.
fn check(only: &[Group], has_gpu: bool) -> Result<()> {
    let vain = only.iter().filter(|group| group.needs_gpu() && !has_gpu);
    let vain: Vec<_> = vain.map(|group| group.name()).collect();
    ensure!(
        vain.is_empty(),
        "--only {}: on a GPU alone, and this is measured on the CPU",
        vain.join(",")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_gpu_is_not_asked_of_a_cpu() {
        let why = check(&[Group::Attention, Group::Decode, Group::Products], false);
        let why = why.expect_err("there is none").to_string();
        assert!(why.starts_with("--only attention,products: on a GPU alone"), "{why}");
        assert!(check(&[Group::Attention], true).is_ok() && check(&[Group::Decode], false).is_ok());
        assert!(check(&[], false).is_ok(), "everything that there can be");
    }
}
