//! `baton bench engine`: one engine against what the hardware allows.

use std::path::PathBuf;

use anyhow::Result;
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
    let bench = EngineBench {
        model: args.model.map_or(ModelSource::Shape(args.shape), ModelSource::Folder),
        cuda: args.device.cuda()?,
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
