//! Greedy tokens against the CPU's: equal, but for ties.

use engine::backend::Backend;
use engine::backend::cuda::CudaOptions;
use engine::{Model, SampleRow, StepBatch};
use kv_cache::{KvCodec, TokenId};
use rstest::rstest;
use words::Sampling;

use crate::compare::farthest;
use crate::files::goldens;
use crate::models::{Part, Source, blocks_of, each, gpu, narrow_llama, some_tokens, step_of};

const KV_BLOCKS: u32 = 64;

/// Of logits of the order of 1 to 10: more than any rounding.
const OFF_MAX: f32 = 0.25;

/// The token after all of `batch`'s rows.
fn likeliest<B: Backend>(model: &mut Model<B>, batch: &StepBatch<'static>) -> TokenId {
    let sampling = Sampling::greedy();
    let mut batch: StepBatch<'_> = batch.clone();
    let row = batch.tokens.len() - 1;
    let empty = &[];
    batch.samples = vec![SampleRow {
        row,
        sampling: &sampling,
        choice: 0,
        index: 0,
        prompt: empty,
        output: empty,
        banned: empty,
    }];
    let output = model.step(&batch, &mut |_, _| ()).expect("a valid batch");
    output.samples[0].as_ref().expect("a token").token
}

/// Lets both generate, step by step. Where they part, the CPU's logits of their tokens must be
/// nearer to each other than the two computations are; then both go on with the CPU's token.
fn compare(
    source: &Source,
    dtype: KvCodec,
    cuda: &CudaOptions,
    (prompt, count): (&[TokenId], usize),
) {
    let mut gpu = source.on_gpu_as(Some(dtype), cuda, KV_BLOCKS);
    let mut cpu = source.on_cpu(KV_BLOCKS);
    let blocks = blocks_of(0, prompt.len() + count, KV_BLOCKS);
    let (mut tokens, mut from, mut ties) = (prompt.to_vec(), 0, 0);
    while tokens.len() < prompt.len() + count {
        let batch = step_of(&[Part { tokens: &tokens, from, blocks: &blocks }]);
        let (want, got) = (likeliest(&mut cpu, &batch), likeliest(&mut gpu, &batch));
        if want != got {
            let row = [batch.tokens.len() - 1];
            let of_cpu = cpu.logits(&batch, &row).expect("a valid batch");
            let of_gpu = gpu.logits(&batch, &row).expect("a valid batch");
            let gap = of_cpu[want as usize] - of_cpu[got as usize];
            let off = farthest(&of_gpu, &of_cpu);
            let (name, at) = (&source.name, tokens.len() - prompt.len());
            println!("{name}: token {at} is {got} for {want}: {gap:.4} apart, off by {off:.4}");
            assert!(gap <= 2.0 * off && off < OFF_MAX, "{name}: not a tie at token {at}");
            ties += 1;
        }
        from = tokens.len();
        tokens.push(want);
    }
    println!("{}: {count} greedy tokens, {ties} ties", source.name);
    assert!(ties * 20 <= count, "ties are rare");
}

#[rstest]
#[ignore = "needs a GPU"]
fn of_every_golden(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    each(goldens().iter().map(|golden| Source::stored(&golden.dir)), |source| {
        let config = source.on_cpu(KV_BLOCKS).config().clone();
        let prompt = some_tokens(4, 7, config.vocab_size);
        let count = (config.max_position as usize - prompt.len() - 1).min(256);
        // Their weights are wide: with bfloat16 there would be many ties.
        compare(source, KvCodec::F16, &cuda, (&prompt, count));
    });
}

#[rstest]
#[ignore = "needs a GPU"]
fn of_a_narrow_llama(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    compare(&narrow_llama(), KvCodec::BF16, &cuda, (&some_tokens(3, 100, 1000), 256));
}
