//! KV memory: what steps write, and the copies out of it and into it.

use std::ops::Range;

use engine::Model;
use engine::backend::Backend;
use engine::backend::cuda::CudaOptions;
use half::{bf16, f16};
use kv_cache::{BlockId, BlockRef, BlockVersion, Fence, KvCodec, KvRegion, PageRange};
use rstest::rstest;

use crate::compare::errors;
use crate::models::{
    Part, Source, blocks_of, each, gpu, logits_in_chunks, narrow_llama, other_shapes, some_tokens,
    step_of,
};

const KV_BLOCKS: u32 = 160;

fn references(blocks: &[BlockId]) -> Vec<BlockRef> {
    blocks.iter().map(|&block| BlockRef { block, version: BlockVersion(0) }).collect()
}

fn gather(region: &dyn KvRegion, layers: Range<u32>, blocks: &[BlockId], fence: Fence) -> Vec<u8> {
    let blocks = references(blocks);
    let pages = PageRange { layers, blocks: &blocks };
    let mut bytes = vec![0; pages.pages() * region.layout().page_bytes()];
    region.gather(&pages, fence, &mut bytes).expect("pages of this region");
    bytes
}

fn scatter(region: &dyn KvRegion, layers: Range<u32>, blocks: &[BlockId], bytes: &[u8]) {
    let blocks = references(blocks);
    region.scatter(&PageRange { layers, blocks: &blocks }, bytes).expect("pages of this region");
}

fn numbers(codec: KvCodec, bytes: &[u8]) -> Vec<f32> {
    let words = || bytes.chunks_exact(2).map(|word| [word[0], word[1]]);
    match codec {
        KvCodec::BF16 => words().map(|word| bf16::from_le_bytes(word).to_f32()).collect(),
        KvCodec::F16 => words().map(|word| f16::from_le_bytes(word).to_f32()).collect(),
        _ => bytes
            .chunks_exact(4)
            .map(|word| f32::from_le_bytes(word.try_into().expect("4 bytes")))
            .collect(),
    }
}

/// Keys, then values of one layer: `[tokens, kv heads * head size]` each.
fn keys_and_values(
    region: &dyn KvRegion,
    layer: u32,
    blocks: &[BlockId],
    (tokens, fence): (usize, Fence),
) -> [Vec<f32>; 2] {
    let layout = region.layout();
    let all = numbers(layout.codec, &gather(region, layer..layer + 1, blocks, fence));
    let (heads, size) = (layout.kv_heads() as usize, layout.head_dim() as usize);
    let slots = layout.block_tokens() as usize;
    [0, 1].map(|part| {
        let vector = |(token, head): (usize, usize)| {
            let page = (token / slots * 2 + part) * heads + head;
            &all[(page * slots + token % slots) * size..][..size]
        };
        let places = (0..tokens).flat_map(|token| (0..heads).map(move |head| (token, head)));
        places.flat_map(vector).copied().collect()
    })
}

/// Runs `tokens` and returns a fence behind the last step's writes.
fn run<B: Backend>(
    model: &mut Model<B>,
    tokens: &[u32],
    blocks: &[BlockId],
    ends: &[usize],
) -> Fence {
    let (mut from, mut last) = (0, Fence(0));
    for &end in ends {
        let batch = step_of(&[Part { tokens: &tokens[..end], from, blocks }]);
        model.step(&batch, &mut |_, fence| last = fence).expect("a valid batch");
        from = end;
    }
    last
}

fn compare(source: &Source, cuda: &CudaOptions, ends: &[usize]) {
    let (mut gpu, mut cpu) = (source.on_gpu(cuda, KV_BLOCKS), source.on_cpu(KV_BLOCKS));
    let tokens = some_tokens(2, ends[ends.len() - 1], cpu.config().vocab_size);
    let blocks = blocks_of(1, tokens.len(), KV_BLOCKS);
    let behind_gpu = run(&mut gpu, &tokens, &blocks, ends);
    let behind_cpu = run(&mut cpu, &tokens, &blocks, &[tokens.len()]);
    let head = cpu.layout().head_dim() as usize;
    for layer in 0..cpu.layout().layers() {
        let of = |region: &dyn KvRegion, fence| {
            keys_and_values(region, layer, &blocks, (tokens.len(), fence))
        };
        let got = of(&*gpu.region(), behind_gpu);
        let want = of(&*cpu.region(), behind_cpu);
        let [keys, values] = [0, 1].map(|part| errors(&got[part], &want[part], head));
        println!("{} layer {layer}: keys {keys}; values {values}", source.name);
        for errors in [keys, values] {
            assert!(errors.overall < 2e-2 && errors.worst < 6e-2, "{errors}");
        }
    }
}

#[rstest]
#[ignore = "needs a GPU"]
fn pages_hold_what_the_cpus_hold(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    let all = other_shapes().into_iter().chain([narrow_llama()]);
    each(all, |source| compare(source, &cuda, &[40, 41, 42, 43, 77]));
}

/// Bytes that look random.
fn some_bytes(seed: u32, count: usize) -> Vec<u8> {
    some_tokens(seed, count, 256).into_iter().map(|byte| byte as u8).collect()
}

#[test]
#[ignore = "needs a GPU"]
fn what_is_scattered_is_gathered() {
    let cuda = gpu(false);
    let model = narrow_llama().on_gpu(&cuda, 2000);
    let region = model.region();
    let page = region.layout().page_bytes();
    // A page, some, and more than pinned memory holds at once.
    for (seed, count, layers) in [(1, 1, 0..1), (2, 1, 0..2), (3, 7, 1..2), (4, 1100, 0..2)] {
        let blocks = blocks_of(0, count * 16, 2000);
        let bytes = some_bytes(seed, count * layers.len() * page);
        scatter(&*region, layers.clone(), &blocks, &bytes);
        let back = gather(&*region, layers.clone(), &blocks, Fence(0));
        assert!(back == bytes, "{count} blocks of layers {layers:?}");
        // In another order, and a part only.
        let last = blocks[count - 1];
        let start = (layers.len() * count - 1) * page;
        let one = gather(&*region, layers.end - 1..layers.end, &[last], Fence(0));
        assert!(one == bytes[start..], "the last of {count} blocks");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn copies_at_the_same_time_keep_apart() {
    let cuda = gpu(false);
    let model = narrow_llama().on_gpu(&cuda, 2000);
    let region = model.region();
    let page = region.layout().page_bytes();
    std::thread::scope(|scope| {
        for thread in 0..6usize {
            let region = &region;
            scope.spawn(move || {
                let blocks = blocks_of(thread, 200 * 16, 2000);
                for round in 0..10 {
                    let bytes = some_bytes(thread as u32 * 100 + round, 2 * 200 * page);
                    scatter(&**region, 0..2, &blocks, &bytes);
                    assert!(gather(&**region, 0..2, &blocks, Fence(0)) == bytes);
                }
            });
        }
    });
}

#[rstest]
#[ignore = "needs a GPU"]
fn pages_are_final_behind_their_fences(#[values(false, true)] portable: bool) {
    let cuda = gpu(portable);
    let mut model = narrow_llama().on_gpu(&cuda, KV_BLOCKS);
    let region = model.region();
    let tokens = some_tokens(7, 2000, 1000);
    let blocks = blocks_of(0, tokens.len(), KV_BLOCKS);
    let mut from = 0;
    for end in [700, 1400, 1401, 1402, 1403, 2000] {
        let batch = step_of(&[Part { tokens: &tokens[..end], from, blocks: &blocks }]);
        let touched = &blocks[from / 16..end.div_ceil(16)];
        let mut written = Vec::new();
        // Gathered while the step runs: nothing waits for it but the fences.
        let pending = model
            .submit(&batch, &mut |layers, fence| written.push((layers, fence)))
            .expect("valid");
        let early: Vec<_> = written
            .iter()
            .map(|(layers, fence)| gather(&*region, layers.clone(), touched, *fence))
            .collect();
        model.collect(pending).expect("a step that succeeds");
        let covered: Vec<u32> = written.iter().flat_map(|(layers, _)| layers.clone()).collect();
        assert_eq!(covered, [0, 1], "each layer once");
        let last = written[written.len() - 1].1;
        for ((layers, _), early) in written.iter().zip(&early) {
            let late = gather(&*region, layers.clone(), touched, last);
            assert!(*early == late, "layers {layers:?} up to {end} were not final");
        }
        from = end;
    }
}

#[test]
#[ignore = "needs a GPU"]
fn a_sequence_goes_on_over_copied_and_carried_pages() {
    let cuda = gpu(false);
    let source = narrow_llama();
    let (mut model, mut other) = (source.on_gpu(&cuda, KV_BLOCKS), source.on_gpu(&cuda, KV_BLOCKS));
    let tokens = some_tokens(8, 300, 1000);
    let first = blocks_of(0, 304, KV_BLOCKS);
    let second = blocks_of(1, 304, KV_BLOCKS);
    let ends = [250, 300];
    let behind = run(&mut model, &tokens, &first, &ends);
    let batch = |blocks| step_of(&[Part { tokens: &tokens, from: 290, blocks }]);
    let rows: Vec<usize> = (0..10).collect();
    let want = model.logits(&batch(&first), &rows).expect("a valid batch");
    for (&from, &to) in first.iter().zip(&second) {
        model.copy_block(from, to).expect("blocks of this pool");
    }
    let copied = model.logits(&batch(&second), &rows).expect("a valid batch");
    assert!(copied == want, "copied blocks");
    let layers = 0..model.layout().layers();
    let bytes = gather(&*model.region(), layers.clone(), &first, behind);
    scatter(&*other.region(), layers, &second, &bytes);
    let carried = other.logits(&batch(&second), &rows).expect("a valid batch");
    assert!(carried == want, "carried blocks");
    let whole = logits_in_chunks(&mut other, &tokens, &first, &[300]);
    let off = errors(&want, &whole[290 * 1000..], 1000);
    assert!(off.worst < 2e-2, "{off}");
}
