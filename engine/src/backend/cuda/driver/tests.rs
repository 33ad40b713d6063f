#![allow(clippy::print_stdout, reason = "what was measured")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::device::Device;
use super::element::ElementType;
use super::kernel::{ArgumentRef, Launch, Wide};
use super::memory::DeviceMemory;
use super::pinned::PinnedMemory;
use super::tensor_map::TensorMap;
use crate::backend::cuda::compile::{Compiler, Defines};
use crate::backend::cuda::kv;
use crate::backend::cuda::testing::{Gpu, message};
use crate::backend::cuda::weights::random::RandomFill;
use crate::error::EngineError;

// --- Device and memory. ---

#[test]
#[ignore = "needs a GPU"]
fn a_device_knows_what_it_is() {
    let gpu = Gpu::open();
    let properties = gpu.device.properties();
    println!("{properties:?}, {}", properties.architecture());
    println!("NVRTC {:?}", gpu.device.libraries().nvrtc().unwrap().version());
    println!("{:?}", gpu.device.libraries().cublaslt().unwrap());
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
    gpu.stream.write(there.all(), &numbers).unwrap();
    gpu.stream.copy(back.all(), there.all()).unwrap();
    let mut got = vec![0_u32; 1000];
    gpu.stream.read(&mut got, back.all()).unwrap();
    assert_eq!(got, numbers);

    let mut pinned = PinnedMemory::new(&gpu.device, 4000).unwrap();
    assert!(pinned.host::<u32>(0..4000).unwrap().iter().all(|&number| number == 0));
    for is_marked in [true, false] {
        gpu.stream.copy(pinned.lend(0..2000), back.part(2000..4000)).unwrap();
        if is_marked {
            pinned.mark(&gpu.stream).unwrap();
        }
        // The rest wasn't lent.
        pinned.host::<u32>(2000..4000).unwrap().fill(7);
        assert_eq!(pinned.host::<u32>(0..2000).unwrap(), &numbers[500..]);
        pinned.host::<u32>(0..2000).unwrap().fill(0);
    }
    assert!(pinned.host::<u32>(2000..4000).unwrap().iter().all(|&number| number == 7));
    gpu.stream.fill(back.all(), 7).unwrap();
    gpu.stream.read(&mut got, back.all()).unwrap();
    assert!(got.iter().all(|&number| number == 0x0707_0707));
}

// --- Kernels. ---

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
    let (address, elements, key, range) =
        (memory.address(), Wide(512), Wide(1), (0.0_f32, 1.0_f32));
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
        let units = [("weights/random.cu", Defines::new()), ("kv.cu", Defines::of(kv::CONSTANTS))];
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
    let record = || fill.fill(&gpu.stream, memory.all(), 3, (5.0, 1.0));
    gpu.stream.fill(memory.all(), 0).unwrap();
    let graph = gpu
        .stream
        .capture(|| {
            assert!(gpu.stream.is_capturing()?);
            (0..100).try_for_each(|_| record())
        })
        .unwrap();
    assert!(gpu.bf16s(memory.all()).iter().all(|&x| x == 0.0), "recorded, not run");
    graph.upload(&gpu.stream).unwrap();
    graph.launch(&gpu.stream).unwrap();
    assert!(gpu.bf16s(memory.all()).iter().all(|&x| (4.0..=6.0).contains(&x)));
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

/// Engines of one process share a GPU: one starts, ends or measures while another records.
#[test]
#[ignore = "needs a GPU"]
fn one_engine_records_while_another_takes_and_gives_back() {
    let gpu = Gpu::open();
    let memory = gpu.memory(2000);
    let fill = RandomFill::new(&gpu.compiler, ElementType::Bf16).unwrap();
    let until = Instant::now() + Duration::from_secs(1);
    let turns = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let other = Gpu::open();
            let mut turns = 0;
            while Instant::now() < until {
                let taken = other.memory(1 << 20);
                let mut pinned = PinnedMemory::new(&other.device, 1 << 16).unwrap();
                other.stream.copy(taken.part(0..1 << 16), pinned.lend(0..1 << 16)).unwrap();
                if turns % 2 == 0 {
                    pinned.mark(&other.stream).unwrap();
                }
                drop(pinned);
                other.device.synchronize().unwrap();
                turns += 1;
            }
            turns
        });
        while Instant::now() < until {
            let record = || fill.fill(&gpu.stream, memory.all(), 3, (5.0, 1.0));
            let graph = gpu.stream.capture(|| (0..100).try_for_each(|_| record())).unwrap();
            graph.launch(&gpu.stream).unwrap();
        }
        other.join().unwrap()
    });
    assert!(turns > 10, "{turns} turns");
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
    let why = TensorMap::new(memory.at(2), ElementType::Bf16, &dims, &strides, &boxes);
    assert!(message(why.unwrap_err()).contains("multiple of 16"));
}
