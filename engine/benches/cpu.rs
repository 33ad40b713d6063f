//! Decode and prefill rates of the CPU backend on a model of 30 million parameters.
//!
//! Sketch, for 2 cores of a 2023 server: decoding one sequence reads every layer's weights and the
//! output projection once, 59 MB in bfloat16. One core streams 15-20 GB/s, so the floor is 2 to 3 ms
//! a token when weights come from memory, less where they stay in a large last-level cache. A
//! prompt of 100 tokens takes 2 * 30e6 * 100 = 6 GFLOP; a core with AVX-512 does 60 GFLOP/s or more,
//! so 50 ms.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::{CpuBackend, LoadFormat, Model, ModelOptions, SampleRow, SequenceRows, StepBatch};
use kv_cache::BlockId;
use words::Sampling;

const BLOCK_TOKENS: u32 = 16;
const VOCAB: u32 = 16_384;

const CONFIG: &str = r#"{
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 16384, "hidden_size": 512, "intermediate_size": 1408,
    "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 4,
    "max_position_embeddings": 2048, "tie_word_embeddings": true, "torch_dtype": "bfloat16"
}"#;

fn load(threads: usize) -> Model<CpuBackend> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(dir.path().join("config.json"), CONFIG).expect("a temporary folder");
    let options = ModelOptions {
        kv_blocks: Some(512),
        block_tokens: BLOCK_TOKENS,
        threads: Some(threads),
        load_format: LoadFormat::Dummy { seed: 1 },
        ..ModelOptions::default()
    };
    let mut bytes = 0;
    let model = Model::load(dir.path(), &options, &mut |progress| bytes = progress.bytes);
    println!(
        "{threads} threads, {:.1} M parameters, {:.1} MB read per decode step",
        bytes as f64 / 2e6,
        bytes as f64 / 1e6
    );
    model.expect("dummy weights")
}

/// Sequence `index` with `new` rows behind `context` tokens that are already written.
fn push_rows(batch: &mut StepBatch<'_>, index: u32, context: u32, new: u32) {
    let (start, blocks) = (batch.tokens.len(), (context + new).div_ceil(BLOCK_TOKENS));
    batch.tokens.extend((0..new).map(|i| (i * 37 + index * 11) % VOCAB));
    batch.positions.extend(context..context + new);
    batch.sequences.push(SequenceRows {
        rows: start..batch.tokens.len(),
        context_tokens: context + new,
        blocks: (index * 40..index * 40 + blocks).map(BlockId).collect(),
    });
}

fn batch<'a>(sampling: &'a Sampling, sequences: u32, context: u32, new: u32) -> StepBatch<'a> {
    let mut batch = StepBatch::default();
    for index in 0..sequences {
        push_rows(&mut batch, index, context, new);
        batch.samples.push(SampleRow {
            row: batch.tokens.len() - 1,
            sampling,
            choice: 0,
            index: 0,
            prompt: &[],
            output: &[],
            banned: &[],
        });
    }
    batch
}

fn steps(criterion: &mut Criterion) {
    let sampling = Sampling::default();
    for threads in [1, 2] {
        let mut model = load(threads);
        let mut group = criterion.benchmark_group(format!("cpu/{threads}-threads"));
        group.sample_size(10).measurement_time(Duration::from_secs(3));
        let mut bench = |name: &str, sequences, context, new| {
            let batch = batch(&sampling, sequences, context, new);
            group.throughput(Throughput::Elements(batch.tokens.len() as u64));
            group.bench_function(name, |bencher| {
                bencher
                    .iter(|| black_box(model.step(&batch, &mut |_, _| ()).expect("a valid batch")));
            });
        };
        bench("decode/1-sequence/128-context", 1, 128, 1);
        bench("decode/8-sequences/128-context", 8, 128, 1);
        bench("prefill/100-tokens", 1, 0, 100);
        bench("prefill/512-tokens", 1, 0, 512);
        group.finish();
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
