//! Logits of a prompt, and the tokens that follow: what `tests/goldens/live` compares with
//! transformers.
//!
//! `logits --model DIR --tokens FILE --out FILE [--device cpu] [--portable] [--greedy N]`
//!
//! - `--tokens`: decimal ids, separated by white space.
//! - `--out`: f32, little-endian, `[tokens, vocabulary]`.
//! - `--greedy`: prints as many tokens, computed one after the other.
#![allow(clippy::print_stdout, reason = "a command's answer")]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use engine::backend::Backend;
use engine::{CudaOptions, Model, ModelOptions, SampleRow, SequenceRows, StepBatch};
use kv_cache::{BlockId, TokenId};
use words::Sampling;

const BLOCK_TOKENS: u32 = 16;

#[derive(Debug, Default)]
struct Arguments {
    model: PathBuf,
    tokens: PathBuf,
    out: PathBuf,
    on_cpu: bool,
    portable: bool,
    greedy: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = arguments(std::env::args().skip(1))?;
    let tokens = std::fs::read_to_string(&arguments.tokens)?;
    let tokens: Vec<TokenId> =
        tokens.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let slots = (tokens.len() + arguments.greedy) as u32;
    let options = ModelOptions {
        kv_blocks: Some(slots.div_ceil(BLOCK_TOKENS)),
        block_tokens: BLOCK_TOKENS,
        ..ModelOptions::default()
    };
    let start = Instant::now();
    if arguments.on_cpu {
        return compute(Model::load(&arguments.model, &options, &mut |_| ())?, &tokens, &arguments);
    }
    let cuda = CudaOptions {
        portable: arguments.portable,
        step_rows_max: tokens.len().next_multiple_of(256) as u32,
        kernel_cache: Some(std::env::temp_dir().join("baton-test-kernels")),
        ..CudaOptions::default()
    };
    let model = Model::load_cuda(&arguments.model, &options, &cuda, &mut |_| ())?;
    println!("loaded in {:.1} s", start.elapsed().as_secs_f32());
    compute(model, &tokens, &arguments)
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, Box<dyn Error>> {
    let mut arguments = Arguments::default();
    while let Some(name) = given.next() {
        if name == "--portable" {
            arguments.portable = true;
            continue;
        }
        let value = given.next().ok_or_else(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--model" => arguments.model = value.into(),
            "--tokens" => arguments.tokens = value.into(),
            "--out" => arguments.out = value.into(),
            "--greedy" => arguments.greedy = value.parse()?,
            "--device" => arguments.on_cpu = value == "cpu",
            _ => return Err(format!("no option {name}").into()),
        }
    }
    Ok(arguments)
}

fn compute<B: Backend>(
    mut model: Model<B>,
    tokens: &[TokenId],
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let rows: Vec<usize> = (0..tokens.len()).collect();
    let logits = model.logits(&batch(tokens, 0), &rows)?;
    write(&arguments.out, &logits)?;
    let greedy = greedy(&mut model, tokens, arguments.greedy)?;
    let greedy: Vec<String> = greedy.iter().map(ToString::to_string).collect();
    println!("greedy {}", greedy.join(" "));
    Ok(())
}

fn write(file: &Path, logits: &[f32]) -> std::io::Result<()> {
    let bytes: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    std::fs::write(file, bytes)
}

/// Rows `from..` of the sequence.
fn batch(tokens: &[TokenId], from: usize) -> StepBatch<'static> {
    let blocks = (tokens.len() as u32).div_ceil(BLOCK_TOKENS);
    StepBatch {
        tokens: tokens[from..].to_vec(),
        positions: (from as u32..tokens.len() as u32).collect(),
        sequences: vec![SequenceRows {
            rows: 0..tokens.len() - from,
            context_tokens: tokens.len() as u32,
            blocks: (0..blocks).map(BlockId).collect(),
        }],
        ..StepBatch::default()
    }
}

fn greedy<B: Backend>(
    model: &mut Model<B>,
    prompt: &[TokenId],
    count: usize,
) -> Result<Vec<TokenId>, Box<dyn Error>> {
    let sampling = Sampling::greedy();
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + count {
        // The prompt's last row is computed again, alone, as a decode row.
        let mut batch = batch(&tokens, tokens.len() - 1);
        batch.samples = vec![SampleRow {
            row: 0,
            sampling: &sampling,
            choice: 0,
            index: (tokens.len() - prompt.len()) as u32,
            prompt,
            output: &[],
            banned: &[],
        }];
        let output = model.step(&batch, &mut |_, _| ())?;
        tokens.push(output.samples[0].as_ref().map_err(ToString::to_string)?.token);
    }
    Ok(tokens.split_off(prompt.len()))
}
