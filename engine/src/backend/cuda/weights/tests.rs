#![allow(clippy::print_stdout, reason = "what was measured")]

use std::time::Instant;

use half::{bf16, f16};

use super::random::RandomFill;
use super::upload::Uploader;
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::testing::Gpu;
use crate::sampler::philox::Philox;
use crate::weights::WeightDtype;

#[test]
#[ignore = "needs a GPU"]
fn random_weights_are_those_of_the_host() {
    let gpu = Gpu::open();
    let elements = 1_000_003;
    let memory = gpu.memory(2 * elements + 64);
    for (element, offset, key, range) in [
        (ElementType::Bf16, 0, 0xDEAD_BEEF_0123_4567_u64, (0.0, 0.027_063_293_f32)),
        (ElementType::Bf16, 2, 7, (1.0, 0.1)),
        (ElementType::F16, 6, u64::MAX, (1.0, 0.1)),
        (ElementType::F16, 8, 0, (0.0, (3.0_f32 / 4096.0).sqrt())),
    ] {
        let fill = RandomFill::new(&gpu.compiler, element).unwrap();
        gpu.stream.fill(memory.all(), 0xFF).unwrap();
        fill.fill(&gpu.stream, memory.part(offset..offset + 2 * elements), key, range).unwrap();
        let mut all = vec![0_u16; memory.bytes() / 2];
        gpu.stream.read(&mut all, memory.all()).unwrap();
        let (start, end) = (offset / 2, offset / 2 + elements);
        let wanted = host_random(key, elements, range).map(|x| element.bits(x) as u16);
        let wrong = all[start..end].iter().zip(wanted).filter(|(got, want)| **got != *want).count();
        assert_eq!(wrong, 0, "{element:?} at {offset}: of {elements}");
        assert!(all[..start].iter().chain(&all[end..]).all(|&bits| bits == 0xFFFF), "outside");
    }
}

/// As `weights/dummy.rs` computes them.
fn host_random(key: u64, count: usize, (center, spread): (f32, f32)) -> impl Iterator<Item = f32> {
    let generator = Philox::new(key);
    (0..count.div_ceil(4) as u32)
        .flat_map(move |block| generator.block([block, 0, 0, 0]))
        .take(count)
        .map(move |bits| center + spread * ((bits as i32) as f32 / i32::MAX as f32))
}

#[test]
#[ignore = "needs a GPU"]
fn weights_arrive_as_they_were() {
    let gpu = Gpu::open();
    let mut uploader = Uploader::new(&gpu.device).unwrap();
    // Longer than a pinned buffer, odd, and small ones between.
    let counts = [5, 50_000_001, 1, 17, 33_554_432, 4096];
    let memory: Vec<_> = counts.iter().map(|&count| gpu.memory(count * 2)).collect();
    let numbers: Vec<f32> = host_random(11, 50_000_001, (0.0, 1.0)).collect();
    for dtype in [WeightDtype::F32, WeightDtype::F16, WeightDtype::Bf16] {
        let bytes: Vec<u8> = match dtype {
            WeightDtype::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            WeightDtype::F16 => {
                numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
            }
            WeightDtype::Bf16 => {
                numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()
            }
        };
        let start = Instant::now();
        for (memory, count) in memory.iter().zip(counts) {
            let part = &bytes[..count * dtype.bytes()];
            uploader.copy(memory.all(), ElementType::Bf16, dtype, part).unwrap();
        }
        uploader.finish().unwrap();
        let read = counts.iter().sum::<usize>() * dtype.bytes();
        println!("{dtype:?}: {:.1} GB/s read", read as f64 / start.elapsed().as_secs_f64() / 1e9);
        for (memory, count) in memory.iter().zip(counts) {
            let mut got = vec![0_u16; count];
            gpu.stream.read(&mut got, memory.all()).unwrap();
            let wanted = numbers[..count].iter().map(|&x| match dtype {
                WeightDtype::F16 => bf16::from_f32(f16::from_f32(x).to_f32()).to_bits(),
                _ => bf16::from_f32(x).to_bits(),
            });
            let wrong = got.iter().zip(wanted).filter(|(got, want)| **got != *want).count();
            assert_eq!(wrong, 0, "{dtype:?}, of {count}");
        }
    }
}
