//! `baton doctor`: what Baton can use of this machine.

use anyhow::Result;
use console::style;

use crate::model::ModelRequest;
use crate::{out, settings};

/// Prints what is there, what isn't, and what that means.
///
/// # Errors
/// If that can't be written.
pub(crate) fn run() -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    fine("CPU", &format!("{cores} cores; the CPU backend runs any supported model"))?;
    match engine::cuda::probe() {
        Ok(gpus) if gpus.is_empty() => missing("GPU", "the CUDA driver is there but shows no GPU")?,
        Ok(gpus) => {
            for (number, gpu) in gpus.iter().enumerate() {
                let (major, minor) = gpu.compute_capability;
                let gibibytes = gpu.memory_bytes >> 30;
                let detail =
                    format!("{}, {gibibytes} GiB, compute capability {major}.{minor}", gpu.name);
                fine(&format!("GPU {number}"), &detail)?;
            }
            for (library, found) in engine::cuda::libraries() {
                match found {
                    Ok(()) => fine(library, "found")?,
                    Err(why) => missing(library, &why)?,
                }
            }
        }
        Err(why) => missing("GPU", &format!("{why}; models run on the CPU"))?,
    }
    let demo = ModelRequest {
        source: None,
        revision: "main".to_owned(),
        served_name: None,
        offline: true,
        is_dummy: false,
    };
    match demo.resolve() {
        Ok(model) => fine("demo model", &model.dir.display().to_string())?,
        Err(error) => missing("demo model", &format!("{error:#}"))?,
    }
    match settings::hub_cache() {
        Some(cache) if cache.is_dir() => fine("Hugging Face cache", &cache.display().to_string()),
        Some(cache) => {
            missing("Hugging Face cache", &format!("{} isn't there yet", cache.display()))
        }
        None => missing("Hugging Face cache", "neither HF_HOME nor HOME is set"),
    }
}

fn fine(what: &str, detail: &str) -> Result<()> {
    out::line(format_args!("{} {:<20} {detail}", style("ok").green(), style(what).bold()))
}

fn missing(what: &str, detail: &str) -> Result<()> {
    out::line(format_args!("{} {:<20} {detail}", style("--").yellow(), style(what).bold()))
}
