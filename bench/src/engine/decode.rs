//! Steady decoding: milliseconds of a step, by batch.

use anyhow::Result;
use engine::EngineStats;

use super::driver::{Driver, median};
use super::{BLOCK_TOKENS, Group, Row, Run};

/// vLLM 0.26.0, Llama-3.1-8B, H200: batch, and how many times the floor a step takes.
const VLLM: [(usize, f64); 6] =
    [(1, 1.39), (8, 1.38), (32, 1.37), (64, 1.31), (128, 1.31), (256, 1.26)];

/// Measures all batches.
///
/// The time for a long run less that for a short one, over the tokens between, is a step's at the
/// context in the middle; beginnings and ends cancel out. Where only one run is made, its steady part
/// is taken.
pub(super) fn measure(run: &mut Run<'_>, driver: &mut Driver) -> Result<()> {
    let sizes = run.sizes.clone();
    let (prompt, (short, long)) = (sizes.decode_prompt, sizes.decode_tokens);
    let steps = (long - short) as usize;
    for &batch in sizes.batches {
        let name = format!("batch {batch}");
        let sequences = driver.info().sequences_max as usize;
        if batch > sequences || !driver.fits(batch, prompt + long as usize) {
            run.note(&format!("decode, {name}: doesn't fit"));
            continue;
        }
        // What is chosen or recorded for this many rows, and tables of this length, is so once.
        let mut prompts = vec![BLOCK_TOKENS as usize; batch];
        prompts[0] = prompt;
        driver.run_each(&prompts, 8)?;
        // Small batches are quick to repeat.
        let pairs = if batch <= 32 { 3 * sizes.pairs } else { sizes.pairs };
        let (mut differences_ms, mut spans) = (Vec::with_capacity(pairs), Vec::new());
        let before = driver.stats();
        for _ in 0..pairs {
            let short_ms = driver.run(batch, prompt, short)?.total_ms();
            let heard = driver.run(batch, prompt, long)?;
            differences_ms.push((heard.total_ms() - short_ms) / steps as f64);
            spans.extend(heard.steady(steps).map(|steady| steady.span));
        }
        let measured = match pairs {
            0 => driver.run(batch, prompt, long)?.steady(steps).map(|steady| {
                spans.push(steady.span);
                (steady.step_ms, steady.generated)
            }),
            _ => Some((median(differences_ms), f64::midpoint(f64::from(short), f64::from(long)))),
        };
        let Some((step_ms, generated)) = measured else { continue };
        let host_us = host_us_a_step(&before, &driver.stats());
        let context = prompt as f64 + generated;
        let rate = batch as f64 / step_ms * 1e3;
        let row = Row::time(Group::Decode, name, step_ms, "ms/step")
            .with_floor(run.floor.decode_ms(batch, context))
            .with_peer(run.peer(&VLLM, batch))
            .with_energy(run.energy(&spans))
            .with_note(format!("{rate:.0} tok/s, context {context:.0}, host {host_us:.0} us"));
        run.row(row);
    }
    Ok(())
}

/// What a step without prefill cost the engine's thread between two moments, microseconds.
fn host_us_a_step(before: &EngineStats, after: &EngineStats) -> f64 {
    let steps = after.decode_steps.saturating_sub(before.decode_steps).max(1);
    (after.decode_host_s - before.decode_host_s) * 1e6 / steps as f64
}
