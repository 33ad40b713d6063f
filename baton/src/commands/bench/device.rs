//! Which device is measured.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use engine::CudaOptions;

use crate::settings;

/// What is measured on.
#[derive(Args, Clone, Debug)]
pub(super) struct DeviceArgs {
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

// === impl DeviceArgs ===

impl DeviceArgs {
    /// The GPU, and how it is used; `None` for the CPU.
    pub(super) fn cuda(&self) -> Result<Option<CudaOptions>> {
        let Some(ordinal) = self.ordinal()? else { return Ok(None) };
        let kernel_cache = self.kernel_cache.clone().or_else(settings::kernel_cache);
        Ok(Some(CudaOptions {
            ordinal,
            memory_share: self.gpu_memory_utilization,
            portable: self.portable,
            library_folders: self.cuda_libraries.clone(),
            // As a worker that is told nothing.
            turns: kernel_cache.clone(),
            kernel_cache,
            ..CudaOptions::default()
        }))
    }

    fn ordinal(&self) -> Result<Option<usize>> {
        let number =
            self.device.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (self.device.as_str(), number) {
            ("auto", _) => Ok(engine::cuda::first_usable()),
            ("cpu", _) => Ok(None),
            ("cuda", _) => Ok(Some(0)),
            (_, Some(number)) if number.parse::<usize>().is_ok() => Ok(Some(number.parse()?)),
            (other, _) => bail!("--device is {other:?}: want auto, cpu, cuda or cuda:N"),
        }
    }
}
