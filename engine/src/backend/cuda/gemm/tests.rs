//! Matrix products, against those of the host and against the time that memory takes.

#![allow(clippy::print_stdout, reason = "what was measured")]

use std::time::Instant;

use super::library::{Matmul, Product};
use super::tiled::{TiledKind, TiledMatmul, TiledProduct, TiledShape};
use crate::backend::cuda::driver::element::ElementType;
use crate::backend::cuda::driver::memory::DeviceMemory;
use crate::backend::cuda::testing::Gpu;

#[test]
#[ignore = "needs a GPU"]
fn products_equal_those_of_the_host() {
    let gpu = Gpu::open();
    let cache = tempfile::tempdir().unwrap();
    let forgetful = Matmul::new(&gpu.device, None).unwrap();
    let keeping = Matmul::new(&gpu.device, Some(cache.path())).unwrap();
    for matmul in [&forgetful, &keeping] {
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
                // As in a step: the library loads what it needs when it runs the first time, which it
                // couldn't while that is recorded.
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
        gpu.random(x.all(), 1, (0.0, 1.0));
        gpu.random(weight.all(), 2, (0.0, 1.0));
        gpu.random(bias.all(), 3, (0.0, 1.0));
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
        gpu.stream.fill(out.all(), 0xFF).unwrap();
        run(&self.product);
        let got = match self.product.out_element {
            ElementType::F32 => {
                let mut got = vec![0.0_f32; rows * out_stride];
                gpu.stream.read(&mut got, out.all()).unwrap();
                got
            }
            _ => gpu.bf16s(out.all()),
        };
        let x = gpu.bf16s(x.all());
        let weight = gpu.bf16s(weight.all());
        let bias = gpu.bf16s(bias.all());
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
#[ignore = "needs a GPU"]
fn products_of_many_rows_equal_those_of_the_host() {
    use TiledKind::{Gated, Plain};
    let gpu = Gpu::open();
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
    gpu.random(x.all(), 1, (0.0, 1.0));
    gpu.random(weight.all(), 2, (0.0, 0.2));
    gpu.random(bias.all(), 3, (0.0, 1.0));
    gpu.stream.fill(out.all(), 0xFF).unwrap();
    run(&TiledProduct {
        x: x.address(),
        weight: weight.address(),
        bias: (!is_gated).then_some(bias.address()),
        out: out.address(),
        rows,
        shape,
    });
    let got = gpu.bf16s(out.all());
    let (got, after) = got.split_at(rows * outputs);
    assert!(got.iter().all(|x| x.is_finite()), "{rows} rows of {shape:?}: something isn't written");
    assert!(after.iter().all(|x| x.is_nan()), "{rows} rows of {shape:?}: written past the end");
    let x = gpu.bf16s(x.all());
    let weight = gpu.bf16s(weight.all());
    let bias = gpu.bf16s(bias.all());
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
#[ignore = "needs a GPU"]
fn products_of_llama_are_near_the_memorys_rate() {
    let gpu = Gpu::open();
    let cache = tempfile::tempdir().unwrap();
    let tuned = Matmul::new(&gpu.device, Some(cache.path())).unwrap();
    let x = gpu.memory(8192 * 14336 * 2);
    let out = gpu.memory(8192 * 28672 * 2);
    let weights = gpu.memory(4 * 28672 * 4096 * 2);
    gpu.random(x.all(), 1, (0.0, 1.0));
    gpu.random(weights.all(), 2, (0.0, 0.03));
    println!("us (time to choose, ms)");
    for (outputs, inputs) in [(4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336)] {
        for rows in [1, 16, 64, 256, 1024, 2048, 8192] {
            let bytes = outputs * inputs * 2;
            let copies = weights.bytes() / bytes;
            let product = |copy: usize| Product {
                x: x.address(),
                weight: weights.at(copy % copies * bytes),
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
            let all = || (0..runs).try_for_each(|copy| tuned.run(&gpu.stream, &product(copy)));
            let graph = gpu.stream.capture(all).unwrap();
            graph.launch(&gpu.stream).unwrap();
            let times = (0..3).map(|_| gpu.stream.time_us(|| graph.launch(&gpu.stream)).unwrap());
            let chosen = times.fold(f32::INFINITY, f32::min) / runs as f32;
            let gb_per_s = bytes as f32 / chosen / 1e3;
            let flops = 2.0 * (rows * outputs * inputs) as f32;
            println!(
                "{rows:5} x {outputs:5} x {inputs:5}: {chosen:7.1} ({choosing_ms:4.1})  \
                 {gb_per_s:5.0} GB/s of weights, {:4.0} TFLOP/s",
                flops / chosen / 1e6
            );
            // The slowest memory of a GPU with tensor cores for these has 600 GB/s, and small weights
            // stay in its cache.
            assert!(rows > 16 || gb_per_s > 300.0, "{gb_per_s:.0} GB/s of weights, {rows} rows");
        }
    }
    let again = Matmul::new(&gpu.device, Some(cache.path())).unwrap();
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
