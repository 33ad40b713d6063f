//! Every checkpoint of `tests/goldens`, against what transformers computed of it.

use engine::backend::cuda::CudaOptions;
use kv_cache::KvCodec;
use rstest::rstest;

use crate::compare::{Errors, errors};
use crate::files::{Golden, Prompt, goldens};
use crate::models::{Source, blocks_of, gpu, logits_in_chunks};

/// Bounds of relative errors with bfloat16: of all rows, and of the worst. It keeps 8 bits, and these
/// models' weights are wide, so that attention is sharp and an error grows from layer to layer:
/// transformers in bfloat16 is off by up to 3.6e-2, and by 1.1e-1 in a row (`tests/goldens/live`). An
/// H100 was off by 2.5e-2 and 7.4e-2.
const BOUNDS: (f64, f64) = (4e-2, 1.2e-1);

/// With halves, which keep 11 bits: an eighth of the error, and some room.
const HALF_BOUNDS: (f64, f64) = (BOUNDS.0 / 6.0, BOUNDS.1 / 6.0);

const KV_BLOCKS: u32 = 32;

#[rstest]
#[ignore = "needs a GPU"]
fn logits_are_those_of_transformers_and_of_the_cpu(
    #[values(KvCodec::BF16, KvCodec::F16)] dtype: KvCodec,
    #[values(false, true)] portable: bool,
) {
    let cuda = gpu(portable);
    let wrong: usize = goldens().iter().map(|golden| wrong_prompts(golden, dtype, &cuda)).sum();
    assert!(wrong == 0, "{wrong} prompts are out of bounds");
}

/// How many prompts of a model have logits out of bounds.
fn wrong_prompts(golden: &Golden, dtype: KvCodec, cuda: &CudaOptions) -> usize {
    let source = Source::stored(&golden.dir);
    let mut gpu = source.on_gpu_as(Some(dtype), cuda, KV_BLOCKS);
    let mut cpu = source.on_cpu(KV_BLOCKS);
    let vocab = cpu.config().vocab_size as usize;
    let bounds = if dtype == KvCodec::F16 { HALF_BOUNDS } else { BOUNDS };
    let mut is_wrong = |prompt: &Prompt| {
        let blocks = blocks_of(0, prompt.ids.len(), KV_BLOCKS);
        let ends = [prompt.ids.len()];
        let got = logits_in_chunks(&mut gpu, &prompt.ids, &blocks, &ends);
        let same = logits_in_chunks(&mut cpu, &prompt.ids, &blocks, &ends);
        let of_transformers = errors(&got, &prompt.logits, vocab);
        let of_cpu = errors(&got, &same, vocab);
        println!(
            "{:20} {} {:3} tokens: off transformers by {of_transformers}, off the CPU by {of_cpu}",
            source.name,
            dtype.name,
            prompt.ids.len()
        );
        let exceed = |errors: Errors| errors.overall > bounds.0 || errors.worst > bounds.1;
        exceed(of_transformers) || exceed(of_cpu)
    };
    golden.prompts.iter().filter(|prompt| is_wrong(prompt)).count()
}
