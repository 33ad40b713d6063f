//! Prompts: the time to the first token of one, and the throughput of many.

use anyhow::Result;

use super::driver::{Driver, median, ms};
use super::{Group, Row, Run};
use crate::energy::Span;

/// vLLM 0.26.0, Llama-3.1-8B, H200: tokens, and how many times the floor the first token takes.
const VLLM: [(usize, f64); 4] = [(512, 1.73), (2048, 1.34), (8192, 1.30), (32_768, 1.27)];
/// As above: 32 prompts of 2,048 tokens.
const VLLM_BATCHED: [(usize, f64); 1] = [(32, 1.26)];

/// Measures single prompts, after rest and without, prompts at once, and requests offline.
pub(super) fn measure(run: &mut Run<'_>, driver: &mut Driver) -> Result<()> {
    for &(tokens, times) in run.sizes.prompts {
        if !driver.fits(1, tokens + 1) {
            run.note(&format!("prefill, {tokens} tokens: doesn't fit"));
            continue;
        }
        single(run, driver, tokens, times)?;
        in_a_row(run, driver, tokens)?;
    }
    batched(run, driver)?;
    if run.sizes.has_offline {
        offline(run, driver)?;
    }
    Ok(())
}

fn single(run: &mut Run<'_>, driver: &mut Driver, tokens: usize, times: usize) -> Result<()> {
    driver.run(1, tokens, 1)?;
    let mut first_ms = Vec::with_capacity(times);
    for _ in 0..times {
        driver.rest(run.sizes.rest);
        first_ms.push(driver.run(1, tokens, 1)?.first_ms());
    }
    let (least, most) =
        first_ms.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), &ms| (a.min(ms), b.max(ms)));
    let first_ms = median(first_ms);
    let rate = tokens as f64 / first_ms * 1e3;
    let rest = match run.sizes.rest.as_secs() {
        0 => "without rest".to_owned(),
        rest_s => format!("after {rest_s} s of rest"),
    };
    let note = format!("{rate:.0} tok/s, {least:.1} to {most:.1} ms, {rest}");
    let row = Row::time(Group::Prefill, format!("{tokens} tokens"), first_ms, "ms to first token")
        .with_floor(run.floor.prefill_ms(1, tokens))
        .with_peer(run.peer(&VLLM, tokens))
        .with_note(note);
    run.row(row);
    Ok(())
}

/// What a busy server gives: the card is at its power limit, and the next prompt is always there.
fn in_a_row(run: &mut Run<'_>, driver: &mut Driver, tokens: usize) -> Result<()> {
    if !driver.fits(2, tokens + 1) {
        run.note(&format!("prefill, {tokens} tokens in a row: doesn't fit"));
        return Ok(());
    }
    let ends = driver.run_in_a_row(tokens, run.sizes.in_a_row)?;
    let (Some(&from), Some(&to)) = (ends.first(), ends.last()) else { return Ok(()) };
    let count = ends.len() - 1;
    let (each_ms, all) = (ms(to - from) / count as f64, count * tokens);
    let rate = tokens as f64 / each_ms * 1e3;
    let name = format!("{tokens} tokens in a row");
    let row = Row::time(Group::Prefill, name, each_ms, "ms/prompt")
        .with_floor(run.floor.prefill_ms(1, tokens))
        .with_energy(run.energy(&[Span { from, to, tokens: all }]))
        .with_note(format!("{rate:.0} tok/s, {count} in {:.1} s", (to - from).as_secs_f64()));
    run.row(row);
    Ok(())
}

fn batched(run: &mut Run<'_>, driver: &mut Driver) -> Result<()> {
    let (count, tokens) = run.sizes.batched;
    if !driver.fits(count, tokens + 1) {
        run.note(&format!("prefill, {count} x {tokens} tokens: doesn't fit"));
        return Ok(());
    }
    let heard = driver.run(count, tokens, 1)?;
    let span = Span { from: heard.begun, to: heard.first_at(), tokens: count * tokens };
    let all = span.tokens as f64;
    let name = format!("{count} x {tokens} tokens");
    let row = Row::rate(Group::Prefill, name, all / heard.first_ms() * 1e3, "tok/s")
        .with_floor(run.floor.prefill_ms(count, tokens).map(|floor_ms| all / floor_ms * 1e3))
        .with_peer(run.peer(&VLLM_BATCHED, count))
        .with_energy(run.energy(&[span]));
    run.row(row);
    Ok(())
}

fn offline(run: &mut Run<'_>, driver: &mut Driver) -> Result<()> {
    let (count, prompt, tokens) = run.sizes.offline;
    if !driver.fits(1, prompt + tokens as usize) {
        run.note("prefill, offline: doesn't fit");
        return Ok(());
    }
    let total_s = driver.run(count, prompt, tokens)?.total_ms() / 1e3;
    let at_once = driver.info().sequences_max as usize;
    let floor_s = run.floor.offline_ms(count, prompt, tokens as usize, at_once).map(|ms| ms / 1e3);
    let name = format!("offline {count} x {prompt}/{tokens}");
    let out = (count * tokens as usize) as f64;
    let row = Row::rate(Group::Prefill, name, out / total_s, "output tok/s")
        .with_floor(floor_s.map(|floor_s| out / floor_s))
        .with_note(format!("{:.1} req/s", count as f64 / total_s));
    run.row(row);
    Ok(())
}
