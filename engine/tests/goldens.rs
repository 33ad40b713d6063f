//! The forward pass against transformers, for every checkpoint in `tests/goldens`.
//!
//! Its README says how the goldens were computed: 32-bit floats, eager attention. Here weights are
//! read in the file's dtype and everything else is 32 bits too, KV memory included.

use std::path::{Path, PathBuf};

use engine::{CpuBackend, Model, ModelOptions, SampleRow, SequenceRows, StepBatch};
use kv_cache::{BlockId, KvDtype};
use safetensors::SafeTensors;
use scheduler::Sampling;
use serde_json::Value;

/// Logits are of the order of 1 to 10. Another order of summation moved them by 5e-5 at most; every
/// mistake that the goldens are made to show moves some by 2e-2 or more.
const TOLERANCE: f32 = 2e-4;

/// Small and no divisor of the prompts, so that sequences cross blocks and end inside one.
const BLOCK_TOKENS: u32 = 5;
const KV_BLOCKS: u32 = 40;

struct Golden {
    dir: PathBuf,
    prompts: Vec<Prompt>,
}

struct Prompt {
    ids: Vec<u32>,
    /// `[ids, vocab]`.
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

// === impl Golden ===

impl Golden {
    fn read(dir: &Path) -> Self {
        let text = std::fs::read_to_string(dir.join("golden.json")).expect("golden.json");
        let json: Value = serde_json::from_str(&text).expect("golden.json is JSON");
        assert_eq!(json["format"], 1, "{}: unknown format", dir.display());
        let tensors = std::fs::read(dir.join("golden.safetensors")).expect("golden.safetensors");
        let tensors = SafeTensors::deserialize(&tensors).expect("golden.safetensors is valid");
        let prompts = json["prompts"].as_array().expect("prompts");
        let prompts = prompts.iter().map(|prompt| Prompt::read(prompt, &tensors)).collect();
        Self { dir: dir.to_owned(), prompts }
    }

    fn load(&self) -> Model<CpuBackend> {
        let options = ModelOptions {
            kv_blocks: Some(KV_BLOCKS),
            block_tokens: BLOCK_TOKENS,
            kv_dtype: Some(KvDtype::F32),
            threads: Some(1),
            ..ModelOptions::default()
        };
        Model::load(&self.dir, &options, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn name(&self) -> &str {
        self.dir.file_name().and_then(|name| name.to_str()).expect("a folder's name")
    }
}

// === impl Prompt ===

impl Prompt {
    /// Where a golden has `stepwise` numbers, they are the ones whose rows depend on nothing that
    /// comes after them, as ours do (see `engine::rope`).
    fn read(prompt: &Value, tensors: &SafeTensors<'_>) -> Self {
        let numbers = |value: &Value| -> Vec<u32> {
            let items = value.as_array().expect("a list");
            items.iter().map(|item| item.as_u64().expect("a token") as u32).collect()
        };
        let computed = if prompt["stepwise"].is_object() { &prompt["stepwise"] } else { prompt };
        let tensor = tensors.tensor(computed["logits"].as_str().expect("a name")).expect("logits");
        let floats = tensor.data().chunks_exact(4);
        Self {
            ids: numbers(&prompt["ids"]),
            logits: floats.map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect(),
            greedy: numbers(&computed["greedy"]),
        }
    }
}

fn goldens() -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    let entries = std::fs::read_dir(&root).expect("tests/goldens");
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    dirs.retain(|dir| dir.join("golden.json").exists() && dir.join("config.json").exists());
    dirs.sort();
    assert!(!dirs.is_empty(), "no goldens in {}", root.display());
    dirs.iter().map(|dir| Golden::read(dir)).collect()
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
        let mut model = golden.load();
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
        let mut model = golden.load();
        for prompt in &golden.prompts {
            let got = greedy(&mut model, &prompt.ids, prompt.greedy.len());
            assert_eq!(got, prompt.greedy, "{}: after {} tokens", golden.name(), prompt.ids.len());
        }
    }
}

#[test]
fn a_prompt_in_chunks_gives_the_same_bits_as_the_whole() {
    for golden in goldens() {
        let mut model = golden.load();
        for prompt in &golden.prompts {
            let whole = logits(&mut model, &prompt.ids, prompt.ids.len());
            for chunk in [1, 7, 16] {
                let chunked = logits(&mut model, &prompt.ids, chunk);
                assert!(chunked == whole, "{}: chunks of {chunk} differ", golden.name());
            }
        }
    }
}
