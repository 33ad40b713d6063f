//! Logits of models with random weights, against the CPU.

use engine::backend::cuda::CudaOptions;
use kv_cache::KvDtype;
use rstest::rstest;

use crate::compare::errors;
use crate::models::{
    Source, blocks_of, each, gpu, logits_in_chunks, narrow_llama, other_shapes, some_tokens,
};

/// Of the worst row: bfloat16 keeps 8 bits, so an operation rounds by up to 2^-9, and two layers
/// round some fifteen times in a row.
const BOUND: f64 = 2e-2;
/// With halves, which keep 11 bits.
const HALF_BOUND: f64 = BOUND / 8.0;

fn compare(source: &Source, cuda: &CudaOptions, tokens: usize, ends: &[usize]) {
    compare_as(KvDtype::Bf16, BOUND, source, (cuda, tokens, ends));
}

fn compare_as(
    dtype: KvDtype,
    bound: f64,
    source: &Source,
    (cuda, tokens, ends): (&CudaOptions, usize, &[usize]),
) {
    let kv_blocks = 160;
    let mut gpu = source.on_gpu_as(Some(dtype), cuda, kv_blocks);
    let mut cpu = source.on_cpu(kv_blocks);
    let vocab = cpu.config().vocab_size;
    let ids = some_tokens(1, tokens, vocab);
    let blocks = blocks_of(0, tokens, kv_blocks);
    let want = logits_in_chunks(&mut cpu, &ids, &blocks, &[tokens]);
    let got = logits_in_chunks(&mut gpu, &ids, &blocks, ends);
    let off = errors(&got, &want, vocab as usize);
    println!("{} {}: {tokens} tokens in {} steps: {off}", source.name, dtype.name(), ends.len());
    assert!(off.worst < bound, "{off}");
}

#[rstest]
fn one_token(#[values(false, true)] portable: bool) {
    let Some(cuda) = gpu(portable) else { return };
    compare(&narrow_llama(), &cuda, 1, &[1]);
}

#[rstest]
fn a_prompt(#[values(false, true)] portable: bool, #[values(2, 17, 200, 2000)] tokens: usize) {
    let Some(cuda) = gpu(portable) else { return };
    compare(&narrow_llama(), &cuda, tokens, &[tokens]);
}

#[rstest]
fn one_token_after_another(#[values(false, true)] portable: bool) {
    let Some(cuda) = gpu(portable) else { return };
    let ends: Vec<usize> = (1..=70).collect();
    compare(&narrow_llama(), &cuda, 70, &ends);
}

#[rstest]
fn a_prompt_in_chunks(#[values(false, true)] portable: bool) {
    let Some(cuda) = gpu(portable) else { return };
    compare(&narrow_llama(), &cuda, 1500, &[1, 2, 40, 41, 300, 301, 302, 1000, 1064, 1499, 1500]);
}

#[rstest]
fn of_other_shapes(#[values(false, true)] portable: bool) {
    let Some(cuda) = gpu(portable) else { return };
    each(other_shapes(), |source| {
        let steps: &[usize] = &[60, 61, 62, 63, 90, 91];
        compare_as(KvDtype::F16, HALF_BOUND, source, (&cuda, 91, steps));
    });
}

#[rstest]
fn with_halves(#[values(false, true)] portable: bool) {
    let Some(cuda) = gpu(portable) else { return };
    let steps: &[usize] = &[1, 2, 3, 900, 901, 902, 903, 2000];
    compare_as(KvDtype::F16, HALF_BOUND, &narrow_llama(), (&cuda, 2000, steps));
}
