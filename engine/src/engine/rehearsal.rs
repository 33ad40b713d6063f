//! A first look at how fast a model is, before anybody asks: estimates that begin with another machine's speed let in
//! crowds that this one can't serve.

use std::borrow::Cow;

use kv_cache::BlockId;
use words::Sampling;

use super::StepModel;
use crate::batch::{SampleRow, SequenceRows, StepBatch};
use crate::clock;
use crate::engine::stats::Meter;
use crate::error::EngineError;

/// Computes a short prompt in a block that nobody has yet, and one token after it, and notes their times in `meter`.
///
/// The first time brings weights and code in from where they were; the second is measured.
///
/// # Errors
/// As a step's.
pub(super) fn rehearse(
    model: &mut impl StepModel,
    block_tokens: u32,
    mut meter: Meter,
) -> Result<Meter, EngineError> {
    // A token less than the block holds: the other step's.
    let prompt = block_tokens.saturating_sub(1);
    if prompt == 0 {
        return Ok(meter);
    }
    step(model, 0, prompt)?;
    let began = clock::now();
    step(model, 0, prompt)?;
    let computed = clock::now();
    step(model, prompt, 1)?;
    meter.expect(prompt, computed - began, clock::now() - computed);
    Ok(meter)
}

/// One step of `count` tokens from `first` on, in the first block. Which tokens is no matter.
fn step(model: &mut impl StepModel, first: u32, count: u32) -> Result<(), EngineError> {
    let (sampling, rows) = (Sampling::greedy(), count as usize);
    let sequence = SequenceRows {
        rows: 0..rows,
        context_tokens: first + count,
        blocks: Cow::Borrowed(&[BlockId(0)]),
    };
    let sample = SampleRow {
        row: rows - 1,
        sampling: &sampling,
        choice: 0,
        index: 0,
        prompt: &[],
        output: &[],
        banned: &[],
    };
    let batch = StepBatch {
        tokens: vec![0; rows],
        positions: (first..first + count).collect(),
        sequences: vec![sequence],
        samples: vec![sample],
        ..StepBatch::default()
    };
    let ticket = model.submit(&batch, &mut |_, _| {})?;
    model.collect(ticket).map(drop)
}
