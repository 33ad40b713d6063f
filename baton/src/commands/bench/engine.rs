//! `baton bench engine`: one engine against what the hardware allows.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use bench::engine::{EngineBench, Group, ModelSource, Progress, Shape};
use clap::Args;
use engine::CudaOptions;

use crate::settings;

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
    /// Measure only these, comma separated: decode, prefill.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    only: Vec<Group>,
    /// Fewer repetitions.
    #[arg(long)]
    quick: bool,
    /// Same seed, same weights and prompts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Tokens of a step. Default: as for serving, 8192 on a GPU and 512 on the CPU.
    #[arg(long, value_name = "TOKENS")]
    batch_tokens_max: Option<u32>,
    /// Write the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is measured on.
#[derive(Args, Clone, Debug)]
struct DeviceArgs {
    /// auto takes the first GPU where there is one, cuda:1 the second.
    #[arg(long, default_value = "auto", value_name = "auto|cpu|cuda[:N]")]
    device: String,
    /// Use the kernels for any GPU since Ampere.
    #[arg(long)]
    portable: bool,
    /// The part of the GPU's memory to use.
    #[arg(long, default_value_t = 0.9, value_name = "SHARE")]
    gpu_memory_utilization: f32,
    /// Where compiled kernels are kept. Default: ~/.cache/baton/kernels
    #[arg(long, value_name = "DIR")]
    kernel_cache: Option<PathBuf>,
    /// Folders with CUDA's libraries, comma separated.
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    cuda_libraries: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If the device or the model can't be used, a step fails, or the report can't be written.
pub(super) async fn run(args: EngineArgs) -> Result<()> {
    let bench = EngineBench {
        model: args.model.map_or(ModelSource::Shape(args.shape), ModelSource::Folder),
        cuda: args.device.cuda()?,
        only: args.only,
        quick: args.quick,
        seed: args.seed,
        batch_tokens_max: args.batch_tokens_max,
        command: std::env::args().collect::<Vec<_>>().join(" "),
    };
    let report = tokio::task::spawn_blocking(move || {
        bench.run(&mut |progress| match progress {
            Progress::Note(text) => eprintln!("{text}"),
            Progress::Row(row) => eprintln!("{row}"),
        })
    })
    .await??;
    println!("{report}");
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

// === impl DeviceArgs ===

impl DeviceArgs {
    fn cuda(&self) -> Result<Option<CudaOptions>> {
        let Some(ordinal) = self.ordinal()? else { return Ok(None) };
        Ok(Some(CudaOptions {
            ordinal,
            memory_share: self.gpu_memory_utilization,
            portable: self.portable,
            library_folders: self.cuda_libraries.clone(),
            kernel_cache: self.kernel_cache.clone().or_else(settings::kernel_cache),
            ..CudaOptions::default()
        }))
    }

    fn ordinal(&self) -> Result<Option<usize>> {
        let number = self.device.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (self.device.as_str(), number) {
            ("auto", _) => Ok(engine::cuda::first_usable()),
            ("cpu", _) => Ok(None),
            ("cuda", _) => Ok(Some(0)),
            (_, Some(number)) if number.parse::<usize>().is_ok() => Ok(Some(number.parse()?)),
            (other, _) => bail!("--device is {other:?}: want auto, cpu, cuda or cuda:N"),
        }
    }
}
