//! The forward pass against transformers, for every checkpoint in `tests/goldens`.
//!
//! Its README says how the goldens were computed: 32-bit floats, eager attention. Here weights are
//! read in the file's dtype and everything else is 32 bits too, KV memory included.

#[path = "support/goldens.rs"]
mod files;

use engine::{CpuBackend, Model, ModelOptions, SampleRow, SequenceRows, StepBatch};
use kv_cache::{BlockId, KvCodec};
use words::Sampling;

use files::{Golden, goldens};

/// Logits are of the order of 1 to 10. Another order of summation moved them by 5e-5 at most; every
/// mistake that the goldens are made to show moves some by 2e-2 or more.
const TOLERANCE: f32 = 2e-4;

/// Small and no divisor of the prompts, so that sequences cross blocks and end inside one.
const BLOCK_TOKENS: u32 = 5;
const KV_BLOCKS: u32 = 40;

fn load(golden: &Golden) -> Model<CpuBackend> {
    let options = ModelOptions {
        kv_blocks: Some(KV_BLOCKS),
        block_tokens: BLOCK_TOKENS,
        kv_codec: Some(KvCodec::F32),
        threads: Some(1),
        ..ModelOptions::default()
    };
    Model::load(&golden.dir, &options, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"))
}

/// Rows `from..` of one sequence, in blocks whose order is not the pool's.
fn rows_of(tokens: &[u32], from: usize) -> StepBatch<'static> {
    let blocks = (tokens.len() as u32).div_ceil(BLOCK_TOKENS);
    StepBatch {
        tokens: tokens[from..].to_vec(),
        positions: (from as u32..tokens.len() as u32).collect(),
        sequences: vec![SequenceRows {
            rows: 0..tokens.len() - from,
            context_tokens: tokens.len() as u32,
            blocks: (0..blocks).map(|block| BlockId(block * 7 % KV_BLOCKS)).collect(),
        }],
        ..StepBatch::default()
    }
}

/// Logits of all positions, computed in chunks of `chunk` tokens.
fn logits(model: &mut Model<CpuBackend>, ids: &[u32], chunk: usize) -> Vec<f32> {
    let mut logits = Vec::new();
    for from in (0..ids.len()).step_by(chunk) {
        let batch = rows_of(&ids[..(from + chunk).min(ids.len())], from);
        let rows: Vec<usize> = (0..batch.tokens.len()).collect();
        logits.extend(model.logits(&batch, &rows).expect("a valid batch"));
    }
    logits
}

fn greedy(model: &mut Model<CpuBackend>, ids: &[u32], count: usize) -> Vec<u32> {
    let sampling = Sampling::greedy();
    let (mut tokens, mut from) = (ids.to_vec(), 0);
    while tokens.len() < ids.len() + count {
        let mut batch = rows_of(&tokens, from);
        batch.samples.push(SampleRow {
            row: batch.tokens.len() - 1,
            sampling: &sampling,
            choice: 0,
            index: (tokens.len() - ids.len()) as u32,
            prompt: ids,
            output: &[],
            banned: &[],
        });
        from = tokens.len();
        let output = model.step(&batch, &mut |_, _| ()).expect("a valid batch");
        tokens.push(output.samples[0].as_ref().expect("a token").token);
    }
    tokens.split_off(ids.len())
}

#[test]
fn logits_of_every_position_are_those_of_transformers() {
    for golden in goldens() {
        let mut model = load(&golden);
        for prompt in &golden.prompts {
            let got = logits(&mut model, &prompt.ids, prompt.ids.len());
            assert_eq!(got.len(), prompt.logits.len(), "{}", golden.name());
            let differences = got.iter().zip(&prompt.logits).map(|(got, want)| (got - want).abs());
            let worst = differences.fold(0.0, f32::max);
            let (name, tokens) = (golden.name(), prompt.ids.len());
            assert!(worst < TOLERANCE, "{name}: off by {worst} in a prompt of {tokens} tokens");
        }
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    for golden in goldens() {
        let mut model = load(&golden);
        for prompt in &golden.prompts {
            let got = greedy(&mut model, &prompt.ids, prompt.greedy.len());
            assert_eq!(got, prompt.greedy, "{}: after {} tokens", golden.name(), prompt.ids.len());
        }
    }
}

#[test]
fn a_prompt_in_chunks_gives_the_same_bits_as_the_whole() {
    for golden in goldens() {
        let mut model = load(&golden);
        for prompt in &golden.prompts {
            let whole = logits(&mut model, &prompt.ids, prompt.ids.len());
            for chunk in [1, 7, 16] {
                let chunked = logits(&mut model, &prompt.ids, chunk);
                assert!(chunked == whole, "{}: chunks of {chunk} differ", golden.name());
            }
        }
    }
}
