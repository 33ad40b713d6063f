//! The CUDA backend's machinery on a real GPU. Where there is none, nothing is tested, and each test
//! says so.
#![allow(clippy::print_stdout, reason = "what was measured, and why nothing was")]

use std::path::PathBuf;
use std::time::Instant;

use engine::EngineError;
use engine::backend::cuda::compiler::{Compiler, Defines};
use engine::backend::cuda::device::{Device, Priority, Stream};
use engine::backend::cuda::kernel::{ArgumentRef, Launch};
use engine::backend::cuda::matmul::{Matmul, Product, Tuning};
use engine::backend::cuda::memory::{DeviceMemory, PinnedMemory};
use engine::backend::cuda::random::RandomFill;
use engine::backend::cuda::tensor_map::{ElementType, TensorMap};
use engine::backend::cuda::tiled_matmul::{TiledKind, TiledMatmul, TiledProduct, TiledShape};
use engine::backend::cuda::upload::Uploader;
use engine::config::WeightDtype;
use engine::sampler::philox::Philox;
use half::{bf16, f16};

/// What most tests need.
struct Gpu {
    device: Device,
    stream: Stream,
    compiler: Compiler,
    _cache: tempfile::TempDir,
}

// === impl Gpu ===

impl Gpu {
    /// The first GPU, if there is one.
    fn open() -> Option<Self> {
        if let Err(why) = engine::cuda::probe() {
            println!("skipped: {why}");
            return None;
        }
        let device = Device::open(0, &[]).unwrap();
        let stream = Stream::new(&device, Priority::High).unwrap();
        let cache = tempfile::tempdir().unwrap();
        let compiler = Compiler::new(&device, Some(cache.path().join("kernels"))).unwrap();
        Some(Self { device, stream, compiler, _cache: cache })
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
fn a_device_knows_what_it_is() {
    let Some(gpu) = Gpu::open() else { return };
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
fn too_much_memory_is_refused_in_numbers() {
    let Some(gpu) = Gpu::open() else { return };
    let why = message(DeviceMemory::new(&gpu.device, 1 << 40).unwrap_err());
    println!("{why}");
    assert!(why.contains("1024.00 GiB more are needed"), "{why}");
    assert_eq!(gpu.memory(0).bytes(), 0);
}

#[test]
fn copies_go_both_ways() {
    let Some(gpu) = Gpu::open() else { return };
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
fn random_weights_are_those_of_the_host() {
    let Some(gpu) = Gpu::open() else { return };
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
fn launches_are_checked_against_the_kernel() {
    let Some(gpu) = Gpu::open() else { return };
    let module = gpu.compiler.module("random.cu", &Defines::new()).unwrap();
    let kernel = module.kernel("fill_random").unwrap();
    let why = message(module.kernel("no_such").unwrap_err());
    assert!(why.contains("`no_such` in random.cu"), "{why}");

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
fn a_kept_kernel_needs_no_compiler() {
    let Some(gpu) = Gpu::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let start = Instant::now();
        let compiler = Compiler::new(&gpu.device, Some(folder.path().to_owned())).unwrap();
        let units = ["random.cu", "sampling.cu"].map(|file| (file, Defines::new()));
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
fn work_is_recorded_and_run_again() {
    let Some(gpu) = Gpu::open() else { return };
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
fn tensors_are_described_to_the_copy_engine() {
    let Some(gpu) = Gpu::open() else { return };
    if gpu.device.properties().capability < (9, 0) {
        println!("skipped: no copy engine");
        return;
    }
    let memory = gpu.memory(1 << 20);
    let (dims, strides, boxes) = ([4096, 100], [8192], [64, 64]);
    TensorMap::new(memory.address(), ElementType::Bf16, &dims, &strides, &boxes).unwrap();
    let why = TensorMap::new(memory.address() + 2, ElementType::Bf16, &dims, &strides, &boxes);
    assert!(message(why.unwrap_err()).contains("multiple of 16"));
}

// --- Matrix products. ---

#[test]
fn products_equal_those_of_the_host() {
    let Some(gpu) = Gpu::open() else { return };
    let cache = tempfile::tempdir().unwrap();
    let tuned = Tuning::Measured { cache: Some(cache.path().to_owned()) };
    let matmuls = [Tuning::Off, tuned].map(|tuning| Matmul::new(&gpu.device, tuning).unwrap());
    for matmul in &matmuls {
        // The last ones are of vocabularies: no row of logits but the first is aligned.
        for (rows, outputs, inputs, apart) in [
            (1, 64, 128, 8),
            (5, 200, 96, 8),
            (77, 48, 1000, 16),
            (130, 8, 24, 8),
            (1, 199, 32, 0),
            (17, 199, 32, 0),
            (43, 199, 48, 0),
            (300, 131, 64, 0),
        ] {
            for (has_bias, out_element) in
                [(false, ElementType::Bf16), (true, ElementType::Bf16), (false, ElementType::F32)]
            {
                // Biases are of projections, whose widths are even.
                if has_bias && outputs % 8 != 0 {
                    continue;
                }
                let case = Case::new(&gpu, (rows, outputs, inputs, apart), has_bias, out_element);
                case.check(&gpu, |product| matmul.run(&gpu.stream, product).unwrap());
                case.check(&gpu, |product| {
                    let graph = gpu.stream.capture(|| matmul.run(&gpu.stream, product)).unwrap();
                    graph.launch(&gpu.stream).unwrap();
                });
            }
        }
    }
}

/// A product whose rows lie `apart` elements from each other, poisoned before it is computed.
struct Case {
    memory: [DeviceMemory; 4],
    product: Product,
}

impl Case {
    fn new(
        gpu: &Gpu,
        (rows, outputs, inputs, apart): (usize, usize, usize, usize),
        has_bias: bool,
        out_element: ElementType,
    ) -> Self {
        let (x_stride, out_stride) = (inputs + apart, outputs + apart);
        let x = gpu.memory(rows * x_stride * 2);
        let weight = gpu.memory(outputs * inputs * 2);
        let bias = gpu.memory(outputs * 2);
        let out = gpu.memory(rows * out_stride * out_element.bytes());
        gpu.random(x.address(), rows * x_stride, 1, (0.0, 1.0));
        gpu.random(weight.address(), outputs * inputs, 2, (0.0, 1.0));
        gpu.random(bias.address(), outputs, 3, (0.0, 1.0));
        let product = Product {
            x: x.address(),
            weight: weight.address(),
            bias: has_bias.then_some(bias.address()),
            out: out.address(),
            rows,
            outputs,
            inputs,
            x_stride,
            out_stride,
            element: ElementType::Bf16,
            out_element,
        };
        Self { memory: [x, weight, bias, out], product }
    }

    fn check(&self, gpu: &Gpu, run: impl FnOnce(&Product)) {
        let Product { rows, outputs, inputs, x_stride, out_stride, .. } = self.product;
        let [x, weight, bias, out] = &self.memory;
        gpu.stream.fill(out.address(), 0xFF, out.bytes()).unwrap();
        run(&self.product);
        let got = match self.product.out_element {
            ElementType::F32 => {
                let mut got = vec![0.0_f32; rows * out_stride];
                gpu.stream.read(&mut got, out.address()).unwrap();
                got
            }
            _ => gpu.bf16s(out.address(), rows * out_stride),
        };
        let x = gpu.bf16s(x.address(), rows * x_stride);
        let weight = gpu.bf16s(weight.address(), outputs * inputs);
        let bias = gpu.bf16s(bias.address(), outputs);
        for row in 0..rows {
            let (got, rest) = got[row * out_stride..][..out_stride].split_at(outputs);
            assert!(rest.iter().all(|x| x.is_nan()), "between rows");
            for (output, got) in got.iter().enumerate() {
                let terms = x[row * x_stride..].iter().zip(&weight[output * inputs..]).take(inputs);
                let bias = if self.product.bias.is_some() { bias[output] } else { 0.0 };
                let want = terms.map(|(x, w)| f64::from(x * w)).sum::<f64>() as f32 + bias;
                // Half a unit of bf16's last place, and the order of the sum.
                let bound = want.abs() / 256.0 + 1e-3;
                assert!(
                    (got - want).abs() <= bound,
                    "{:?} {row} {output}: {got}, {want}",
                    self.product
                );
            }
        }
    }
}

/// Every kind of tile, as the shapes call for it, and rows that no tile divides.
#[test]
fn products_of_many_rows_equal_those_of_the_host() {
    use TiledKind::{Gated, Plain};
    let Some(gpu) = Gpu::open() else { return };
    let cases = [
        (Gated, 1000, 520, vec![65, 200]),
        (Gated, 4872, 136, vec![66, 128, 300]),
        (Gated, 14336, 136, vec![65, 128, 129, 256, 1000, 2100]),
        (Plain, 4096, 8200, vec![65, 100, 128]),
        (Plain, 4000, 8192, vec![128]),
    ];
    let mut checked = 0;
    for (kind, outputs, inputs, all_rows) in cases {
        let shape = TiledShape { outputs, inputs, kind };
        let tiled = TiledMatmul::new(&gpu.compiler, ElementType::Bf16, &[shape], 2100).unwrap();
        for rows in all_rows {
            if !tiled.takes(rows, &shape) {
                println!("not on this GPU: {rows} rows of {shape:?}");
                continue;
            }
            check_many_rows(&gpu, shape, rows, |product| tiled.run(&gpu.stream, product).unwrap());
            check_many_rows(&gpu, shape, rows, |product| {
                let graph = gpu.stream.capture(|| tiled.run(&gpu.stream, product)).unwrap();
                graph.launch(&gpu.stream).unwrap();
            });
            checked += 1;
        }
    }
    println!("{checked} products");
}

fn check_many_rows(gpu: &Gpu, shape: TiledShape, rows: usize, run: impl FnOnce(&TiledProduct)) {
    let TiledShape { outputs, inputs, kind } = shape;
    let is_gated = kind == TiledKind::Gated;
    let weight_rows = if is_gated { 2 * outputs } else { outputs };
    let x = gpu.memory(rows * inputs * 2);
    let weight = gpu.memory(weight_rows * inputs * 2);
    let bias = gpu.memory(outputs * 2);
    // One row more than there are.
    let out = gpu.memory((rows + 1) * outputs * 2);
    gpu.random(x.address(), rows * inputs, 1, (0.0, 1.0));
    gpu.random(weight.address(), weight_rows * inputs, 2, (0.0, 0.2));
    gpu.random(bias.address(), outputs, 3, (0.0, 1.0));
    gpu.stream.fill(out.address(), 0xFF, out.bytes()).unwrap();
    run(&TiledProduct {
        x: x.address(),
        weight: weight.address(),
        bias: (!is_gated).then_some(bias.address()),
        out: out.address(),
        rows,
        shape,
    });
    let got = gpu.bf16s(out.address(), (rows + 1) * outputs);
    let (got, after) = got.split_at(rows * outputs);
    assert!(got.iter().all(|x| x.is_finite()), "{rows} rows of {shape:?}: something isn't written");
    assert!(after.iter().all(|x| x.is_nan()), "{rows} rows of {shape:?}: written past the end");
    let x = gpu.bf16s(x.address(), rows * inputs);
    let weight = gpu.bf16s(weight.address(), weight_rows * inputs);
    let bias = gpu.bf16s(bias.address(), outputs);
    let sum = |row: usize, output: usize| {
        let terms = x[row * inputs..][..inputs].iter().zip(&weight[output * inputs..][..inputs]);
        terms.map(|(x, w)| f64::from(x * w)).sum::<f64>()
    };
    // Every output of some rows, of which each warp of a tile has some; every row of some outputs.
    let some_rows = [0, 17, 63, 64, rows / 2, rows - 1].map(|row| row.min(rows - 1));
    let by_row = some_rows.iter().flat_map(|&row| (0..outputs).step_by(7).map(move |o| (row, o)));
    let by_output = [0, outputs / 2, outputs - 1].into_iter();
    let by_output = by_output.flat_map(|output| (0..rows).map(move |row| (row, output)));
    for (row, output) in by_row.chain(by_output) {
        let want = if is_gated {
            let (gate, up) = (sum(row, output), sum(row, outputs + output));
            gate / (1.0 + (-gate).exp()) * up
        } else {
            sum(row, output) + f64::from(bias[output])
        };
        let got = f64::from(got[row * outputs + output]);
        // A unit of bf16's last place, and the order of the sum.
        let bound = want.abs() / 128.0 + 2e-3;
        assert!(
            (got - want).abs() <= bound,
            "{rows} rows of {shape:?}: {row} {output}: {got}, {want}"
        );
    }
}

#[test]
fn products_of_llama_are_near_the_memorys_rate() {
    let Some(gpu) = Gpu::open() else { return };
    let cache = tempfile::tempdir().unwrap();
    let off = Matmul::new(&gpu.device, Tuning::Off).unwrap();
    let tuning = || Tuning::Measured { cache: Some(cache.path().to_owned()) };
    let tuned = Matmul::new(&gpu.device, tuning()).unwrap();
    let whole = Matmul::new(&gpu.device, tuning()).unwrap().with_whole_sums();
    let x = gpu.memory(8192 * 14336 * 2);
    let out = gpu.memory(8192 * 28672 * 2);
    let weights = gpu.memory(4 * 28672 * 4096 * 2);
    gpu.random(x.address(), x.bytes() / 2, 1, (0.0, 1.0));
    gpu.random(weights.address(), weights.bytes() / 2, 2, (0.0, 0.03));
    println!("us: favourite, chosen (time to choose, ms), chosen with whole sums");
    for (outputs, inputs) in [(4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336)] {
        for rows in [1, 16, 64, 256, 1024, 2048, 8192] {
            let bytes = outputs * inputs * 2;
            let copies = weights.bytes() / bytes;
            let product = |copy: usize| Product {
                x: x.address(),
                weight: weights.address() + (copy % copies * bytes) as u64,
                bias: None,
                out: out.address(),
                rows,
                outputs,
                inputs,
                x_stride: inputs,
                out_stride: outputs,
                element: ElementType::Bf16,
                out_element: ElementType::Bf16,
            };
            let start = Instant::now();
            tuned.run(&gpu.stream, &product(0)).unwrap();
            gpu.stream.synchronize().unwrap();
            let choosing_ms = start.elapsed().as_secs_f64() * 1e3;
            let runs = if rows > 1000 { 4 } else { 24 };
            let time = |matmul: &Matmul| {
                let all = || (0..runs).try_for_each(|copy| matmul.run(&gpu.stream, &product(copy)));
                let graph = gpu.stream.capture(all).unwrap();
                graph.launch(&gpu.stream).unwrap();
                let times =
                    (0..3).map(|_| gpu.stream.time_us(|| graph.launch(&gpu.stream)).unwrap());
                times.fold(f32::INFINITY, f32::min) / runs as f32
            };
            whole.run(&gpu.stream, &product(0)).unwrap();
            let [favourite, chosen, whole] = [&off, &tuned, &whole].map(time);
            let flops = 2.0 * (rows * outputs * inputs) as f32;
            println!(
                "{rows:5} x {outputs:5} x {inputs:5}: {favourite:7.1} {chosen:7.1} \
                 ({choosing_ms:4.1}) {whole:7.1}  {:5.0} GB/s of weights, {:4.0} TFLOP/s",
                bytes as f32 / chosen / 1e3,
                flops / chosen / 1e6
            );
            assert!(chosen < 1.1 * favourite + 1.0, "the choice is no worse than the favourite");
        }
    }
    let again = Matmul::new(&gpu.device, tuning()).unwrap();
    let start = Instant::now();
    let product = Product {
        x: x.address(),
        weight: weights.address(),
        bias: None,
        out: out.address(),
        rows: 64,
        outputs: 4096,
        inputs: 4096,
        x_stride: 4096,
        out_stride: 4096,
        element: ElementType::Bf16,
        out_element: ElementType::Bf16,
    };
    again.run(&gpu.stream, &product).unwrap();
    println!("a kept choice: {:?}", start.elapsed());
}

#[test]
fn whole_sums_do_not_depend_on_the_number_of_rows() {
    let Some(gpu) = Gpu::open() else { return };
    let tuning = || Tuning::Measured { cache: None };
    let split = Matmul::new(&gpu.device, tuning()).unwrap();
    let whole = Matmul::new(&gpu.device, tuning()).unwrap().with_whole_sums();
    let x = gpu.memory(4096 * 4096 * 2);
    let out = gpu.memory(4096 * 6144 * 2);
    let weight = gpu.memory(6144 * 4096 * 2);
    gpu.random(x.address(), x.bytes() / 2, 1, (0.0, 1.0));
    gpu.random(weight.address(), weight.bytes() / 2, 2, (0.0, 0.03));
    for (outputs, inputs) in [(4096, 4096), (6144, 4096), (1024, 3072)] {
        let first_rows = |matmul: &Matmul, rows| {
            let product = Product {
                x: x.address(),
                weight: weight.address(),
                bias: None,
                out: out.address(),
                rows,
                outputs,
                inputs,
                x_stride: inputs,
                out_stride: outputs,
                element: ElementType::Bf16,
                out_element: ElementType::Bf16,
            };
            matmul.run(&gpu.stream, &product).unwrap();
            gpu.bf16s(out.address(), 8 * outputs)
        };
        let counts = [8, 20, 33, 64, 100, 200, 257, 300, 512, 777, 1024, 2048, 3000, 4096];
        let differing = |matmul| {
            let reference = first_rows(matmul, 4096);
            let differ = |rows: &usize| first_rows(matmul, *rows) != reference;
            counts.into_iter().filter(differ).collect::<Vec<_>>()
        };
        println!("{outputs} x {inputs}: rows differ at {:?} split", differing(&split));
        assert_eq!(differing(&whole), [0; 0], "{outputs} x {inputs}");
    }
}

// --- Upload. ---

#[test]
fn weights_arrive_as_they_were() {
    let Some(gpu) = Gpu::open() else { return };
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
