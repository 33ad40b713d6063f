#![allow(clippy::print_stdout, reason = "what was measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::region::conformance::{Subject, conformance};
use kv_cache::{
    BlockId, BlockRef, BlockVersion, Fence, KvCodec, KvLayout, KvRegion as _, PageRange, PageShape,
    PeerPages, PeerRegion as _,
};

use super::CudaKv;
use crate::backend::cuda::testing::Gpu;

/// A prompt of 1,024 tokens of Llama-3.1-8B between two pools: how long it takes, all layers at once
/// and in groups of four as a hand-off does it, and that the other blocks stay as they were.
#[test]
#[ignore = "needs a GPU"]
fn pages_of_a_large_model_are_copied_in_the_time_that_memory_takes() {
    const BLOCKS: u32 = 512;
    let Gpu { stream, compiler, .. } = &Gpu::open();
    let layout = KvLayout::whole(32, 8, PageShape::keys_and_values(128, 16), KvCodec::BF16);
    let [from, to] =
        [BLOCKS, BLOCKS / 2].map(|blocks| CudaKv::new(compiler, stream, &layout, blocks).unwrap());
    let version = BlockVersion(0);
    let list = |step: u32, blocks: u32| -> Vec<BlockRef> {
        (0..64).map(|at| BlockRef { block: BlockId(at * step % blocks), version }).collect()
    };
    let (source, target) = (list(37, BLOCKS), list(3, BLOCKS / 2));
    let whole = PageRange { layers: 0..layout.layers(), blocks: &source };
    let bytes = whole.pages() * layout.page_bytes();
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let sent: Vec<u8> = (0..bytes).map(|_| random()).collect();
    from.scatter(&whole, &sent).unwrap();
    let fence = from.fence(stream).unwrap();
    let peer = PeerPages { region: &from, blocks: &source, fence };
    let mut received = vec![0; bytes];
    for group in [layout.layers(), 4] {
        let zeros = PageRange { layers: 0..layout.layers(), blocks: &target };
        to.scatter(&zeros, &vec![0; bytes]).unwrap();
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let began = Instant::now();
            for first in (0..layout.layers()).step_by(group as usize) {
                let pages = PageRange { layers: first..first + group, blocks: &target };
                to.copy_from(&pages, &peer).unwrap();
            }
            best = best.min(began.elapsed());
        }
        to.gather(&zeros, Fence::default(), &mut received).unwrap();
        assert!(received == sent, "in groups of {group}");
        let gb_per_s = 2.0 * bytes as f64 / best.as_secs_f64() / 1e9;
        println!(
            "{} MB in groups of {group} layers: {best:?}, {gb_per_s:.0} GB/s",
            bytes / 1_000_000
        );
        assert!(best < Duration::from_millis(5), "{best:?}: that is not a copy on the device");
    }
    // Blocks that were not named.
    let used: Vec<u32> = target.iter().map(|block| block.block.0).collect();
    let others: Vec<BlockRef> = (0..BLOCKS / 2)
        .filter(|block| !used.contains(block))
        .map(|block| BlockRef { block: BlockId(block), version })
        .collect();
    let rest = PageRange { layers: 0..layout.layers(), blocks: &others };
    let mut bytes = vec![1; rest.pages() * layout.page_bytes()];
    to.gather(&rest, Fence::default(), &mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == 0), "other blocks");
}

#[test]
#[ignore = "needs a GPU"]
fn device_memory_conforms() {
    let gpu = Gpu::open();
    let stream = Arc::new(gpu.stream);
    let layouts = [KvCodec::BF16, KvCodec::F16]
        .map(|codec| KvLayout::whole(3, 2, PageShape::keys_and_values(8, 4), codec));
    conformance(&layouts, |layout, blocks| {
        let kv = Arc::new(CudaKv::new(&gpu.compiler, &stream, layout, blocks).unwrap());
        let (fenced, stream) = (kv.clone(), stream.clone());
        Subject { region: kv, fence: Box::new(move || fenced.fence(&stream).unwrap()) }
    });
}
