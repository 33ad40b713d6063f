//! The card's own rates: what any step is measured against.

use std::fmt;

use anyhow::Result;
use engine::CudaOptions;
use engine::backend::cuda::driver::compiler::Compiler;
use engine::backend::cuda::driver::device::{Device, Priority, Stream};
use engine::backend::cuda::driver::element::ElementType;
use engine::backend::cuda::driver::memory::DeviceMemory;
use engine::backend::cuda::gemm::library::{Matmul, Product, Tuning};
use engine::backend::cuda::measure::bandwidth::ReadBandwidth;
use engine::backend::cuda::weights::random::RandomFill;
use serde::{Deserialize, Serialize};

/// Far more than any cache holds.
const MEMORY_BYTES: usize = 2 << 30;

/// Rows, columns and depth of the product.
const PRODUCT: usize = 8192;

/// Turns of each; the best counts.
const TURNS: usize = 5;

/// Rates that nothing exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Reading device memory, GB/s.
    pub read_gb_per_s: f64,
    /// Copying device memory to itself, GB/s read and written together.
    pub copy_gb_per_s: f64,
    /// A product of 16-bit matrices with 8,192 rows, columns and inputs, TFLOP/s.
    pub product_tflop_per_s: f64,
}

// === impl Ceilings ===

impl Ceilings {
    /// Those of the H200 that the anchors were measured on.
    pub const H200: Self =
        Self { read_gb_per_s: 4300.0, copy_gb_per_s: 4300.0, product_tflop_per_s: 790.0 };

    /// Time to read so many bytes.
    #[must_use]
    pub fn read_ms(&self, bytes: f64) -> f64 {
        bytes / self.read_gb_per_s / 1e6
    }

    /// Time for so many operations of a product.
    #[must_use]
    pub fn product_ms(&self, flops: f64) -> f64 {
        flops / self.product_tflop_per_s / 1e9
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read_gb_per_s, copy_gb_per_s, product_tflop_per_s } = self;
        write!(
            f,
            "reads {read_gb_per_s:.0} GB/s, copies {copy_gb_per_s:.0} GB/s, multiplies \
             {product_tflop_per_s:.0} TFLOP/s (the anchors' H200: {:.0} GB/s, {:.0} TFLOP/s)",
            Self::H200.read_gb_per_s,
            Self::H200.product_tflop_per_s
        )
    }
}

/// Measures them.
pub(crate) fn measure(device: &Device, options: &CudaOptions) -> Result<Ceilings> {
    let stream = Stream::new(device, Priority::High)?;
    let compiler = Compiler::new(device, options.kernel_cache.clone())?;
    let fill = RandomFill::new(&compiler, ElementType::Bf16)?;
    let (read_gb_per_s, copy_gb_per_s) = memory(&stream, &compiler, &fill)?;
    let tuning = Tuning::Measured { cache: options.kernel_cache.clone() };
    let matmul = Matmul::new(device, tuning)?;
    let product_tflop_per_s = product(&stream, &matmul, &fill)?;
    Ok(Ceilings { read_gb_per_s, copy_gb_per_s, product_tflop_per_s })
}

fn memory(stream: &Stream, compiler: &Compiler, fill: &RandomFill) -> Result<(f64, f64)> {
    let from = DeviceMemory::new(stream.device(), MEMORY_BYTES)?;
    let to = DeviceMemory::new(stream.device(), MEMORY_BYTES)?;
    fill.fill(stream, from.address(), MEMORY_BYTES as u64 / 2, 1, (0.0, 1.0))?;
    let reader = ReadBandwidth::new(compiler)?;
    let read_us = best_us(|| stream.time_us(|| reader.read(stream, from.address(), MEMORY_BYTES)))?;
    let copy_us =
        best_us(|| stream.time_us(|| stream.copy(to.address(), from.address(), MEMORY_BYTES)))?;
    let bytes = MEMORY_BYTES as f64;
    Ok((bytes / read_us / 1e3, 2.0 * bytes / copy_us / 1e3))
}

fn product(stream: &Stream, matmul: &Matmul, fill: &RandomFill) -> Result<f64> {
    const RUNS: usize = 10;
    let elements = PRODUCT * PRODUCT;
    let memory = || DeviceMemory::new(stream.device(), elements * 2);
    let (x, weight, out) = (memory()?, memory()?, memory()?);
    fill.fill(stream, x.address(), elements as u64, 2, (0.0, 1.0))?;
    fill.fill(stream, weight.address(), elements as u64, 3, (0.0, 0.03))?;
    let product = Product {
        x: x.address(),
        weight: weight.address(),
        bias: None,
        out: out.address(),
        rows: PRODUCT,
        outputs: PRODUCT,
        inputs: PRODUCT,
        x_stride: PRODUCT,
        out_stride: PRODUCT,
        element: ElementType::Bf16,
        out_element: ElementType::Bf16,
    };
    matmul.run(stream, &product)?;
    let time_us =
        best_us(|| stream.time_us(|| (0..RUNS).try_for_each(|_| matmul.run(stream, &product))))?;
    let flops = 2.0 * (elements * PRODUCT * RUNS) as f64;
    Ok(flops / time_us / 1e6)
}

fn best_us(mut turn: impl FnMut() -> Result<f32, engine::EngineError>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..TURNS {
        best = best.min(turn()?.into());
    }
    Ok(best)
}
