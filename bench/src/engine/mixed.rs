//! Decoding while prompts arrive: what colocated prefill does to the time between tokens.

use anyhow::Result;

use super::driver::{Driver, Mixed, median, quantile};
use super::{Group, Row, Run};

/// Measures the times between tokens of the decoding sequences.
pub(super) fn measure(run: &mut Run<'_>, driver: &mut Driver) -> Result<()> {
    let (count, prompt) = run.sizes.decoding;
    let (arriving, every) = run.sizes.arriving;
    if !driver.fits(count, 2 * prompt) || !driver.fits(1, arriving + 1) {
        run.note("mixed: doesn't fit");
        return Ok(());
    }
    let Mixed { gaps_ms, generated, first_ms } =
        driver.run_mixed((count, prompt), (arriving, every), run.sizes.mixed_for)?;
    let context = prompt as f64 + generated / 2.0;
    let what = format!("{count} decode, +{arriving} tokens");
    let rows = [
        ("p50", 0.5, run.floor.decode_ms(count, context)),
        ("p99", 0.99, run.floor.mixed_ms(count, context, arriving)),
    ];
    for (name, share, floor) in rows {
        let value = quantile(gaps_ms.clone(), share);
        let row = Row::time(Group::Mixed, format!("{what}, {name}"), value, "ms between tokens")
            .with_floor(floor)
            .with_note(format!("a prompt every {} ms", every.as_millis()));
        run.row(row);
    }
    let row =
        Row::time(Group::Mixed, format!("{what}, TTFT"), median(first_ms), "ms to first token")
            .with_floor(run.floor.mixed_ms(count, context, arriving));
    run.row(row);
    Ok(())
}
