//! What moves or maps memory: pages to and from the host, blocks, softmax.

use std::time::Instant;

use anyhow::Result;
use engine::ModelConfig;
use engine::backend::{Memory as _, Timeline as _};
use engine::cuda::CudaBackend;
use engine::cuda::measure::Softmax;
use kv_cache::{BlockId, BlockRef, BlockVersion, PageRange};
use rand::{Rng as _, RngExt as _};

use super::report::{Cost, KernelRow};
use super::rig::{BLOCK_TOKENS, Rig, Room};
use super::{Lab, config_of, error};

/// Blocks of the pool, and of a copy; and where cases are small.
const BLOCKS: usize = 512;
const COPIED: usize = 128;
const COPIED_SMALL: usize = 8;

/// Columns and rows of a softmax.
const COLS: usize = Softmax::COLS;
pub(crate) const SOFTMAX_ROWS: usize = 4096;
const ROWS_SMALL: usize = 64;

/// Exponentials by the fast instruction.
const SOFTMAX_ERROR_MAX: f64 = 1e-4;

// --- Pages. ---

/// Pages go in and come out as they were, and a block is copied whole.
pub(super) fn pages(lab: &mut Lab<'_>) -> Result<()> {
    let config = config_of("llama-3.1-8b")?;
    let mut room = Room::for_rows(&config, BLOCK_TOKENS);
    room.kv_tokens = BLOCKS * BLOCK_TOKENS;
    let mut gpu = Rig::gpu(&room, lab.options())?;
    gpu.finish()?;
    for (order, step) in [("in a row", 1), ("here and there", 37)] {
        to_and_from_host(lab, &config, &mut gpu, (order, step))?;
    }
    copy_block(lab, &config, &mut gpu)
}

/// - `order`: of the blocks, and from one to the next.
fn to_and_from_host(
    lab: &mut Lab<'_>,
    config: &ModelConfig,
    gpu: &mut Rig<CudaBackend>,
    (order, step): (&str, u32),
) -> Result<()> {
    let region = gpu.backend.region();
    let reference = |block| BlockRef { block: BlockId(block), version: BlockVersion(0) };
    let copied = if lab.is_small() { COPIED_SMALL } else { COPIED };
    let blocks: Vec<_> = (0..copied as u32).map(|i| reference(i * step % BLOCKS as u32)).collect();
    let range = PageRange { layers: 0..config.layers, blocks: &blocks };
    let mut bytes = vec![0; range.pages() * region.layout().page_bytes()];
    lab.rng.fill_bytes(&mut bytes);
    let mut back = vec![1; bytes.len()];
    let (mut in_us, mut out_us, mut wrong) = (f64::INFINITY, f64::INFINITY, 0);
    for _ in 0..3 {
        let begun = Instant::now();
        region.scatter(&range, &bytes)?;
        in_us = in_us.min(begun.elapsed().as_secs_f64() * 1e6);
        let fence = gpu.backend.fence()?;
        let begun = Instant::now();
        region.gather(&range, fence, &mut back)?;
        out_us = out_us.min(begun.elapsed().as_secs_f64() * 1e6);
        wrong += bytes.iter().zip(&back).filter(|(sent, back)| sent != back).count();
    }
    let share = wrong as f64 / bytes.len() as f64;
    for (way, us) in [("pages in", in_us), ("pages out", out_us)] {
        let mut row = KernelRow::new(way, format!("{copied} blocks {order}, host's memory"))
            .with_error(share, 0.0);
        row.us = Some(us);
        row.gb_per_s = Some(bytes.len() as f64 / us / 1e3);
        lab.row(row);
    }
    Ok(())
}

fn copy_block(lab: &mut Lab<'_>, config: &ModelConfig, gpu: &mut Rig<CudaBackend>) -> Result<()> {
    let region = gpu.backend.region();
    let [from, to] = [BlockId(37), BlockId(BLOCKS as u32 - 1)];
    gpu.backend.copy_block(from, to)?;
    let mut pages = |block| {
        let blocks = [BlockRef { block, version: BlockVersion(0) }];
        let range = PageRange { layers: 0..config.layers, blocks: &blocks };
        let mut bytes = vec![0; range.pages() * region.layout().page_bytes()];
        let fence = gpu.backend.fence()?;
        region.gather(&range, fence, &mut bytes)?;
        anyhow::Ok(bytes)
    };
    let (source, copy) = (pages(from)?, pages(to)?);
    let wrong = source.iter().zip(&copy).filter(|(from, to)| from != to).count();
    let row = KernelRow::new("copy_block", "all layers")
        .with_error(wrong as f64 / source.len() as f64, 0.0);
    lab.row(row);
    Ok(())
}

// --- Softmax. ---

/// Rows of logits to probabilities.
pub(super) fn softmax(lab: &mut Lab<'_>) -> Result<()> {
    let rows = if lab.is_small() { ROWS_SMALL } else { SOFTMAX_ROWS };
    let x: Vec<f32> = (0..rows * COLS).map(|_| lab.rng.random_range(-8.0..8.0)).collect();
    let softmax = lab.yardstick.softmax(rows)?;
    let got = softmax.run(&x)?;
    let time_us = lab.is_timed().then(|| softmax.time_us()).transpose()?;
    let wanted: Vec<f32> = x.chunks_exact(COLS).flat_map(softmax_of).collect();
    let mut row = KernelRow::new("softmax", format!("{rows} x {COLS}, f32"))
        .with_error(error(&got, &wanted), SOFTMAX_ERROR_MAX);
    if let Some(us) = time_us {
        row = row.with_time(lab, us, Cost { bytes: softmax_bytes(), flops: 0.0 });
    }
    lab.row(row);
    Ok(())
}

/// Each number is read and written once.
pub(crate) fn softmax_bytes() -> f64 {
    (SOFTMAX_ROWS * COLS * 8) as f64
}

fn softmax_of(row: &[f32]) -> Vec<f32> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let terms: Vec<f64> = row.iter().map(|&x| f64::from(x - most).exp()).collect();
    let sum: f64 = terms.iter().sum();
    terms.into_iter().map(|term| (term / sum) as f32).collect()
}
