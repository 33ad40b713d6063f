//! The CUDA backend's machinery on a real GPU. Ignored unless asked for, as `cargo xtask test` does where
//! there is one.
#![allow(clippy::print_stdout, reason = "what was measured")]

use std::path::PathBuf;
use std::time::Instant;

use engine::EngineError;
use engine::backend::cuda::driver::compiler::{Compiler, Defines};
use engine::backend::cuda::driver::device::{Device, Priority, Stream};
use engine::backend::cuda::driver::kernel::{ArgumentRef, Launch};
use engine::backend::cuda::driver::memory::{DeviceMemory, PinnedMemory};
use engine::backend::cuda::driver::tensor_map::{ElementType, TensorMap};
use engine::backend::cuda::weights::random::RandomFill;
use engine::backend::cuda::weights::upload::Uploader;
use engine::config::WeightDtype;
use engine::sampler::philox::Philox;
use half::{bf16, f16};

mod products;

/// What most tests need.
struct Gpu {
    device: Device,
    stream: Stream,
    compiler: Compiler,
    _cache: tempfile::TempDir,
}

// === impl Gpu ===

impl Gpu {
    /// The first GPU.
    fn open() -> Self {
        let device = Device::open(0, &[]).unwrap();
        let stream = Stream::new(&device, Priority::High).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let compiler = Compiler::new(&device, Some(cache.path().join("kernels"))).unwrap();
        Self { device, stream, compiler, _cache: cache }
    }

    fn memory(&self, bytes: usize) -> DeviceMemory {
        DeviceMemory::new(&self.device, bytes).unwrap()
    }

    fn random(&self, address: u64, elements: usize, key: u64, range: (f32, f32)) {
        let fill = RandomFill::new(&self.compiler, ElementType::Bf16).unwrap();
        fill.fill(&self.stream, address, elements as u64, key, range).unwrap();
    }

    fn bf16s(&self, address: u64, elements: usize) -> Vec<f32> {
        let mut out = vec![0_u16; elements];
        self.stream.read(&mut out, address).unwrap();
        out.into_iter().map(|bits| bf16::from_bits(bits).to_f32()).collect()
    }
}

fn message(error: EngineError) -> String {
    match error {
        EngineError::Device(text) => text,
        other => panic!("want a device error, got {other:?}"),
    }
}

// --- Device and memory. ---

#[test]
#[ignore = "needs a GPU"]
fn a_device_knows_what_it_is() {
    let gpu = Gpu::open();
    let properties = gpu.device.properties();
    println!("{properties:?}, {}", properties.architecture());
    println!("NVRTC {:?}", gpu.device.libraries().nvrtc().unwrap().version());
    println!("cublasLt {:?}", gpu.device.libraries().cublaslt().unwrap().version());
    assert!(properties.multiprocessors > 0 && properties.shared_bytes_max >= 96 << 10);
    assert!(gpu.device.free_memory().unwrap() <= properties.memory_bytes);
    let why = message(Device::open(99, &[]).unwrap_err());
    assert!(why.contains("no GPU 99"), "{why}");
}

#[test]
#[ignore = "needs a GPU"]
fn too_much_memory_is_refused_in_numbers() {
    let gpu = Gpu::open();
    let why = message(DeviceMemory::new(&gpu.device, 1 << 40).unwrap_err());
    println!("{why}");
    assert!(why.contains("1024.00 GiB more are needed"), "{why}");
    assert_eq!(gpu.memory(0).bytes(), 0);
}

#[test]
#[ignore = "needs a GPU"]
fn copies_go_both_ways() {
    let gpu = Gpu::open();
    let (there, back) = (gpu.memory(4000), gpu.memory(4000));
    let numbers: Vec<u32> = (0..1000).collect();
    gpu.stream.write(there.address(), &numbers).unwrap();
    gpu.stream.copy(back.address(), there.address(), 4000).unwrap();
    let mut got = vec![0_u32; 1000];
    gpu.stream.read(&mut got, back.address()).unwrap();
    assert_eq!(got, numbers);

    let pinned = PinnedMemory::new(&gpu.device, 4000).unwrap();
    assert!(pinned.as_slice::<u32>().iter().all(|&number| number == 0));
    gpu.stream.copy(pinned.address(), back.address(), 4000).unwrap();
    gpu.stream.synchronize().unwrap();
    assert_eq!(pinned.as_slice::<u32>(), numbers);
    gpu.stream.fill(back.address(), 7, 4000).unwrap();
    gpu.stream.read(&mut got, back.address()).unwrap();
    assert!(got.iter().all(|&number| number == 0x0707_0707));
}

// --- Kernels. ---

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
        gpu.stream.fill(memory.address(), 0xFF, memory.bytes()).unwrap();
        fill.fill(&gpu.stream, memory.address() + offset, elements as u64, key, range).unwrap();
        let mut all = vec![0_u16; memory.bytes() / 2];
        gpu.stream.read(&mut all, memory.address()).unwrap();
        let (start, end) = (offset as usize / 2, offset as usize / 2 + elements);
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
fn launches_are_checked_against_the_kernel() {
    let gpu = Gpu::open();
    let module = gpu.compiler.module("weights/random.cu", &Defines::new()).unwrap();
    let kernel = module.kernel("fill_random").unwrap();
    let why = message(module.kernel("no_such").unwrap_err());
    assert!(why.contains("`no_such` in weights/random.cu"), "{why}");

    let memory = gpu.memory(1024);
    let launch = Launch { grid: [1; 3], block: 64, shared_bytes: 0, cluster: 1, overlaps: true };
    let (address, elements, key, range) = (memory.address(), 512_u64, 1_u64, (0.0_f32, 1.0_f32));
    let arguments = [
        ArgumentRef::new(&address),
        ArgumentRef::new(&elements),
        ArgumentRef::new(&key),
        ArgumentRef::new(&range.0),
        ArgumentRef::new(&range.1),
    ];
    kernel.launch(&gpu.stream, launch, &arguments).unwrap();
    let why = message(kernel.launch(&gpu.stream, launch, &arguments[..4]).unwrap_err());
    assert!(why.contains("[8, 8, 8, 4, 4]") && why.contains("[8, 8, 8, 4]"), "{why}");
    let huge = Launch { block: 2048, ..launch };
    let why = message(kernel.launch(&gpu.stream, huge, &arguments).unwrap_err());
    assert!(why.contains("block: 2048"), "{why}");
    // Beyond 48 KiB, and beyond what there is.
    let wide = Launch { shared_bytes: 64 << 10, ..launch };
    kernel.launch(&gpu.stream, wide, &arguments).unwrap();
    let wider = Launch { shared_bytes: 512 << 10, ..launch };
    let why = message(kernel.launch(&gpu.stream, wider, &arguments).unwrap_err());
    assert!(why.contains("524288 bytes of shared memory"), "{why}");
    gpu.stream.synchronize().unwrap();
}

#[test]
#[ignore = "needs a GPU"]
fn a_kept_kernel_needs_no_compiler() {
    let gpu = Gpu::open();
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let start = Instant::now();
        let compiler = Compiler::new(&gpu.device, Some(folder.path().to_owned())).unwrap();
        let units = ["weights/random.cu", "sampling.cu"].map(|file| (file, Defines::new()));
        assert_eq!(compiler.modules(&units).unwrap().len(), 2);
        start.elapsed()
    };
    let (first, second) = (load(), load());
    println!("compiled in {first:?}, found in {second:?}");
    let kept: Vec<PathBuf> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(second < first / 2);
    std::fs::write(&kept[0], b"damaged").unwrap();
    load();
    assert!(std::fs::metadata(&kept[0]).unwrap().len() > 1000, "compiled and kept again");
}

#[test]
#[ignore = "needs a GPU"]
fn work_is_recorded_and_run_again() {
    let gpu = Gpu::open();
    let memory = gpu.memory(2000);
    let fill = RandomFill::new(&gpu.compiler, ElementType::Bf16).unwrap();
    let record = || fill.fill(&gpu.stream, memory.address(), 1000, 3, (5.0, 1.0));
    gpu.stream.fill(memory.address(), 0, 2000).unwrap();
    let graph = gpu
        .stream
        .capture(|| {
            assert!(gpu.stream.is_capturing()?);
            (0..100).try_for_each(|_| record())
        })
        .unwrap();
    assert!(gpu.bf16s(memory.address(), 1000).iter().all(|&x| x == 0.0), "recorded, not run");
    graph.upload(&gpu.stream).unwrap();
    graph.launch(&gpu.stream).unwrap();
    assert!(gpu.bf16s(memory.address(), 1000).iter().all(|&x| (4.0..=6.0).contains(&x)));
    let time_us = gpu.stream.time_us(|| graph.launch(&gpu.stream)).unwrap();
    println!("a graph of 100 small kernels: {:.2} us each", time_us / 100.0);

    // A recording that fails leaves the stream as it was.
    let failed = gpu.stream.capture(|| {
        record()?;
        Err(EngineError::Device("on purpose".to_owned()))
    });
    assert_eq!(message(failed.unwrap_err()), "on purpose");
    assert!(!gpu.stream.is_capturing().unwrap());
    record().unwrap();
    gpu.stream.synchronize().unwrap();
}

#[test]
#[ignore = "needs a GPU"]
fn tensors_are_described_to_the_copy_engine() {
    let gpu = Gpu::open();
    if gpu.device.properties().capability < (9, 0) {
        println!("this GPU has no copy engine");
        return;
    }
    let memory = gpu.memory(1 << 20);
    let (dims, strides, boxes) = ([4096, 100], [8192], [64, 64]);
    TensorMap::new(memory.address(), ElementType::Bf16, &dims, &strides, &boxes).unwrap();
    let why = TensorMap::new(memory.address() + 2, ElementType::Bf16, &dims, &strides, &boxes);
    assert!(message(why.unwrap_err()).contains("multiple of 16"));
}

// --- Upload. ---

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
            uploader.copy(memory.address(), ElementType::Bf16, dtype, part).unwrap();
        }
        uploader.finish().unwrap();
        let read = counts.iter().sum::<usize>() * dtype.bytes();
        println!("{dtype:?}: {:.1} GB/s read", read as f64 / start.elapsed().as_secs_f64() / 1e9);
        for (memory, count) in memory.iter().zip(counts) {
            let mut got = vec![0_u16; count];
            gpu.stream.read(&mut got, memory.address()).unwrap();
            let wanted = numbers[..count].iter().map(|&x| match dtype {
                WeightDtype::F16 => bf16::from_f32(f16::from_f32(x).to_f32()).to_bits(),
                _ => bf16::from_f32(x).to_bits(),
            });
            let wrong = got.iter().zip(wanted).filter(|(got, want)| **got != *want).count();
            assert_eq!(wrong, 0, "{dtype:?}, of {count}");
        }
    }
}
