//! Steady decoding: milliseconds of a step, by batch.

use anyhow::Result;

use super::driver::{Driver, median};
use super::{Group, Row, Run};

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
        // What is chosen or recorded for this many rows is so once.
        driver.run(batch, 2 * 16, 8)?;
        // Small batches are quick to repeat.
        let pairs = if batch <= 32 { 3 * sizes.pairs } else { sizes.pairs };
        let mut differences_ms = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            let short_ms = driver.run(batch, prompt, short)?.total_ms();
            let long_ms = driver.run(batch, prompt, long)?.total_ms();
            differences_ms.push((long_ms - short_ms) / steps as f64);
        }
        let steady = driver.run(batch, prompt, long)?.steady(steps);
        let (step_ms, generated) = match (differences_ms.is_empty(), steady) {
            (false, _) => {
                (median(differences_ms), f64::midpoint(f64::from(short), f64::from(long)))
            }
            (true, Some(steady)) => (steady.step_ms, steady.generated),
            (true, None) => continue,
        };
        let context = prompt as f64 + generated;
        let mut note = format!("{:.0} tok/s, context {context:.0}", batch as f64 / step_ms * 1e3);
        if let Some(steady) = steady.filter(|_| pairs > 0) {
            note += &format!("; within a run {:.3}", steady.step_ms);
        }
        let row = Row::time(Group::Decode, name, step_ms, "ms/step")
            .with_floor(run.floor.decode_ms(batch, context))
            .with_peer(run.peer(&VLLM, batch))
            .with_note(note);
        run.row(row);
    }
    Ok(())
}
