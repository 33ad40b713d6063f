//! Starting: from nothing to the first token.

use std::time::Instant;

use anyhow::{Context as _, Result};
use engine::{CudaOptions, EngineConfig};

use super::driver::Driver;
use super::{Group, Row, Run};

/// Tokens of the first prompt.
const PROMPT: usize = 16;

/// Measures a start with nothing compiled, and one that finds all that the first has kept.
///
/// Reading weights is part of it where there are any; random ones are made on the device.
pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    let config = run.engine_config();
    let Some(cuda) = &config.model.cuda else {
        return one(run, &config, "on the CPU");
    };
    let cache = tempfile::tempdir().context("no folder for compiled kernels")?;
    let cuda = CudaOptions { kernel_cache: Some(cache.path().to_owned()), ..cuda.clone() };
    let mut config = config.clone();
    config.model.cuda = Some(cuda);
    one(run, &config, "nothing compiled")?;
    one(run, &config, "compiled before")
}

fn one(run: &mut Run<'_>, config: &EngineConfig, name: &str) -> Result<()> {
    let begun = Instant::now();
    let mut driver = Driver::start(config, run.bench.seed)?;
    let started_s = begun.elapsed().as_secs_f64();
    driver.run(1, PROMPT, 1)?;
    let row = Row::time(Group::Start, name, begun.elapsed().as_secs_f64(), "s to first token")
        .with_note(format!("{started_s:.2} s of it until the engine took work"));
    run.row(row);
    Ok(())
}
