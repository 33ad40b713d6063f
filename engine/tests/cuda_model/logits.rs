//! Logits of models with random weights, against the CPU.

use engine::backend::cuda::CudaOptions;
use rstest::rstest;

use crate::compare::errors;
use crate::models::{Source, blocks_of, each, gpu, logits_in_chunks, narrow_llama, other_shapes, some_tokens};

const BOUND: f64 = 2e-2;

fn compare(source: &Source, cuda: &CudaOptions, tokens: usize, ends: &[usize]) {
    let kv_blocks = 160;
    let (mut gpu, mut cpu) = (source.on_gpu(cuda, kv_blocks), source.on_cpu(kv_blocks));
    let vocab = cpu.config().vocab_size;
    let ids = some_tokens(1, tokens, vocab);
    let blocks = blocks_of(0, tokens, kv_blocks);
    let want = logits_in_chunks(&mut cpu, &ids, &blocks, &[tokens]);
    let got = logits_in_chunks(&mut gpu, &ids, &blocks, ends);
    let off = errors(&got, &want, vocab as usize);
    println!("{}: {tokens} tokens in {} steps: {off}", source.name, ends.len());
    assert!(off.worst < BOUND, "{off}");
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
        compare(source, &cuda, 2, &[2]);
        compare(source, &cuda, 90, &[60, 61, 62, 63, 90]);
    });
}
