//! Logits of models with random weights, against the CPU.

use engine::backend::cuda::CudaOptions;
use kv_cache::KvCodec;
use rstest::rstest;

use crate::compare::errors;
use crate::models::{
    Source, blocks_of, each, gpu, logits_in_chunks, narrow_llama, other_shapes, some_tokens,
};

/// Of the worst row: bfloat16 keeps 8 bits, so an operation rounds by up to 2^-9, and two layers
/// round some fifteen times in a row.
const BOUND: f64 = 2e-2;
/// With halves, which keep 11 bits: an eighth of the error, and some room.
const HALF_BOUND: f64 = BOUND / 5.0;

fn compare(source: &Source, cuda: &CudaOptions, tokens: usize, ends: &[usize]) {
    let kv_blocks = 520;
    let (mut gpu, mut cpu) = (source.on_gpu(cuda, kv_blocks), source.on_cpu(kv_blocks));
    let vocab = cpu.config().vocab_size;
    let ids = some_tokens(1, tokens, vocab);
    let blocks = blocks_of(0, tokens, kv_blocks);
    let want = logits_in_chunks(&mut cpu, &ids, &blocks, &[tokens]);
    let got = logits_in_chunks(&mut gpu, &ids, &blocks, ends);
    let off = errors(&got, &want, vocab as usize);
    println!("{}: {tokens} tokens in {} steps: {off}", source.name, ends.len());
    let bound = if gpu.layout().codec == KvCodec::F16 { HALF_BOUND } else { BOUND };
    assert!(off.worst < bound, "{off}");
}

#[rstest]
#[ignore = "needs a GPU"]
fn one_token(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    compare(&narrow_llama(), &cuda, 1, &[1]);
}

#[rstest]
#[ignore = "needs a GPU"]
fn a_prompt(#[values(false, true)] portable: bool, #[values(2, 17, 200, 2000)] tokens: usize) {
    let cuda = gpu(portable);
    compare(&narrow_llama(), &cuda, tokens, &[tokens]);
}

#[rstest]
#[ignore = "needs a GPU"]
fn one_token_after_another(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    let ends: Vec<usize> = (1..=70).collect();
    compare(&narrow_llama(), &cuda, 70, &ends);
}

#[rstest]
#[ignore = "needs a GPU"]
fn a_prompt_in_chunks(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    compare(&narrow_llama(), &cuda, 1500, &[1, 2, 40, 41, 300, 301, 302, 1000, 1064, 1499, 1500]);
}

#[rstest]
#[ignore = "needs a GPU"]
fn of_other_shapes(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    each(other_shapes(), |source| {
        compare(&source.in_halves(), &cuda, 91, &[60, 61, 62, 63, 90, 91]);
    });
}

#[rstest]
#[ignore = "needs a GPU"]
fn with_halves(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    let steps = [1, 2, 3, 900, 901, 902, 903, 2000];
    compare(&narrow_llama().in_halves(), &cuda, 2000, &steps);
}

#[rstest]
#[ignore = "needs a GPU"]
fn a_long_context(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    let ends = [2000, 4000, 6000, 7990, 7991, 7992, 7993, 7994, 8000];
    compare(&narrow_llama().in_halves(), &cuda, 8000, &ends);
}

#[rstest]
#[ignore = "needs a GPU"]
fn in_blocks_of_other_sizes(
    #[values(32, 64)] block_tokens: u32,
    #[values(false, true)] portable: bool,
) {
    let cuda = gpu(portable);
    let windows = other_shapes().into_iter().filter(|source| source.name == "d128-window");
    each(windows.chain([narrow_llama()]), |source| {
        let mut source = source.in_halves();
        source.block_tokens = block_tokens;
        compare(&source, &cuda, 400, &[1, 2, 150, 151, 152, 153, 300, 400]);
    });
}
