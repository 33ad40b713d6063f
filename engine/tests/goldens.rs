//! The forward pass against transformers, for every checkpoint in `tests/goldens`.
//!
//! Its README says how the goldens were computed: 32-bit floats, eager attention. Here weights are
//! read in the file's dtype and everything else is 32 bits too, KV memory included.

#[path = "support/goldens.rs"]
mod files;

use std::path::Path;

use engine::{CpuBackend, Model, ModelOptions, SampleRow, SequenceRows, StepBatch};
use kv_cache::{BlockId, KvCodec};
use words::Sampling;

use files::goldens;

/// Logits are of the order of 1 to 10. Another order of summation moved them by 5e-5 at most; every
/// mistake that the goldens are made to show moves some by 2e-2 or more.
const TOLERANCE: f32 = 2e-4;

/// Small and no divisor of the prompts, so that sequences cross blocks and end inside one.
const BLOCK_TOKENS: u32 = 5;
const KV_BLOCKS: u32 = 40;

/// Folders and the fingerprints of their models, as commit a51ffb8 computed them. Workers of two versions
/// exchange KV by these while a cluster is renewed.
const FINGERPRINTS: [(&str, &str); 15] = [
    ("models/demo", "3940d2652c0f8bf5264c1f7db064b35a"),
    ("tests/goldens/llama-bias", "d03b53b7e2bc18984fd1da8c717845f5"),
    ("tests/goldens/llama-dynamic", "1866650dff68d5b546cd61a494afffdf"),
    ("tests/goldens/llama-linear", "b12d7a4e2fd786ebeb9502ad0bad63f4"),
    ("tests/goldens/llama-own-head", "d4e10c5bb7d2b7c393dfba5f79e2ea03"),
    ("tests/goldens/llama-yarn", "fb8710ee768dd1df2d86a0a2929f9451"),
    ("tests/goldens/llama2-mha", "c7efc4fd0626345b0209aa39c4a2a190"),
    ("tests/goldens/llama3-gqa", "f1629803e6d8ebc20097141c03f5be2d"),
    ("tests/goldens/mistral-wide-heads", "f0bac308ebddd89a4669fdf0b52fcfbf"),
    ("tests/goldens/mistral-window", "b57c074cb4bf032962179e191c8c19d0"),
    ("tests/goldens/qwen2-tied", "998ac45a89408b5173973d970c7160b2"),
    ("tests/goldens/qwen2-window", "5c9bc0d551cbe4d98785e7564bca2412"),
    ("tests/goldens/qwen3-layer-types", "409084f975f8f558672f1c2f4355ba7d"),
    ("tests/goldens/qwen3-yarn", "18dcb4baa64daebebd092ad05dde1672"),
    ("tests/goldens/qwen3", "314b979d49f25ea7349457d012394599"),
];

fn load(dir: &Path) -> Model<CpuBackend> {
    let options = ModelOptions {
        kv_blocks: Some(KV_BLOCKS),
        block_tokens: BLOCK_TOKENS,
        kv_codec: Some(KvCodec::F32),
        threads: Some(1),
        ..ModelOptions::default()
    };
    Model::load(dir, &options, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"))
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
        let mut model = load(&golden.dir);
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
        let mut model = load(&golden.dir);
        for prompt in &golden.prompts {
            let got = greedy(&mut model, &prompt.ids, prompt.greedy.len());
            assert_eq!(got, prompt.greedy, "{}: after {} tokens", golden.name(), prompt.ids.len());
        }
    }
}

#[test]
fn a_prompt_in_chunks_gives_the_same_bits_as_the_whole() {
    for golden in goldens() {
        let mut model = load(&golden.dir);
        for prompt in &golden.prompts {
            let whole = logits(&mut model, &prompt.ids, prompt.ids.len());
            for chunk in [1, 7, 16] {
                let chunked = logits(&mut model, &prompt.ids, chunk);
                assert!(chunked == whole, "{}: chunks of {chunk} differ", golden.name());
            }
        }
    }
}

#[test]
fn fingerprints_are_those_of_older_versions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (dir, want) in FINGERPRINTS {
        assert_eq!(load(&root.join(dir)).fingerprint(), want, "{dir}");
    }
}
