//! Single operations at a model's sizes, as the engine does them, beside the best there are.

use anyhow::Result;
use engine::CudaOptions;
use engine::backend::cuda::driver::compiler::Compiler;
use engine::backend::cuda::driver::device::{Device, Priority, Stream};
use engine::backend::cuda::driver::element::ElementType;
use engine::backend::cuda::driver::memory::DeviceMemory;
use engine::backend::cuda::gemm::library::{Matmul, Product, Tuning};
use engine::backend::cuda::weights::random::RandomFill;

use super::{Group, Row, Run};
use crate::kernels::memory::Softmax;
use crate::kernels::products::Weight;
use crate::kernels::{attention, products};

/// Prompts, tokens, with the best known on an H200 (SGLang's FlashAttention 3), TFLOP/s of 790.
const PREFILL: [(usize, f64); 4] = [(1024, 294.0), (2048, 424.0), (8192, 619.0), (16_384, 631.0)];

/// Rows and context, with the best known share of an H200's bandwidth where there is one.
const DECODE: [(usize, usize, Option<f64>); 5] = [
    (1, 8192, Some(0.48)),
    (8, 1024, Some(0.53)),
    (64, 4096, None),
    (256, 1120, None),
    (1, 131_072, None),
];

/// Copies of a weight for the library: more than any cache holds.
const COPIES_BYTES: usize = 256 << 20;

/// Attention and softmax.
pub(super) fn attention(run: &mut Run<'_>, device: &Device, options: &CudaOptions) -> Result<()> {
    let Some(ceilings) = run.report.ceilings else { return Ok(()) };
    let (config, limit) = (run.config.clone(), run.config.max_position as usize);
    let is_known = run.report.shape == "llama-3.1-8b";
    for (tokens, best) in PREFILL.into_iter().filter(|(tokens, _)| *tokens <= limit) {
        let us = attention::prefill_us(&config, options, tokens)?;
        let rate = attention::prefill_flops(&config, tokens) / us / 1e6;
        let row = Row::rate(Group::Attention, format!("prompt of {tokens}"), rate, "TFLOP/s")
            .with_floor(Some(ceilings.product_tflop_per_s))
            .with_peer(is_known.then_some(super::Ceilings::H200.product_tflop_per_s / best))
            .with_note(format!("{us:.1} us"));
        run.row(row);
    }
    for (count, context, best) in DECODE.into_iter().filter(|(_, context, _)| *context <= limit) {
        let us = attention::decode_us(&config, options, count, context)?;
        let rate = attention::decode_bytes(&config, count, context) / us / 1e3;
        let row =
            Row::rate(Group::Attention, format!("{count} rows, {context} tokens"), rate, "GB/s")
                .with_floor(Some(ceilings.read_gb_per_s))
                .with_peer(best.filter(|_| is_known).map(|share| 1.0 / share))
                .with_note(format!("{us:.1} us"));
        run.row(row);
    }
    softmax(run, device, options)
}

fn softmax(run: &mut Run<'_>, device: &Device, options: &CudaOptions) -> Result<()> {
    let stream = Stream::new(device, Priority::High)?;
    let compiler = Compiler::new(device, options.kernel_cache.clone())?;
    let us = Softmax::new(device, &compiler)?.time_us(&stream)?;
    let row =
        Row::rate(Group::Attention, "softmax 4096 x 8192 f32", Softmax::bytes() / us / 1e3, "GB/s")
            .with_floor(run.report.ceilings.map(|ceilings| ceilings.copy_gb_per_s))
            .with_note(format!("{us:.1} us"));
    run.row(row);
    Ok(())
}

/// The model's products: as the engine does them, with the library's time beside.
pub(super) fn products(run: &mut Run<'_>, device: &Device, options: &CudaOptions) -> Result<()> {
    let Some(ceilings) = run.report.ceilings else { return Ok(()) };
    for weight in products::weights(&run.config) {
        let times = products::times_us(&run.config, options, weight, run.sizes.product_rows)?;
        let library = library_us(device, options, weight, &times)?;
        for ((rows, us), library_us) in times.into_iter().zip(library) {
            let flops = 2.0 * (rows * weight.outputs) as f64 * weight.inputs as f64;
            let bound_ms = ceilings.read_ms(weight.bytes() as f64).max(ceilings.product_ms(flops));
            let name = format!("{} x {rows}", weight.name);
            let row = Row::time(Group::Products, name, us, "us")
                .with_floor(Some(bound_ms * 1e3))
                .with_note(format!("library {library_us:.1} us"));
            run.row(row);
        }
    }
    Ok(())
}

/// The library's time for the same products, gates and ups unjoined.
fn library_us(
    device: &Device,
    options: &CudaOptions,
    weight: Weight,
    times: &[(usize, f64)],
) -> Result<Vec<f64>> {
    let stream = Stream::new(device, Priority::High)?;
    let tuning = Tuning::Measured { cache: options.kernel_cache.clone() };
    let matmul = Matmul::new(device, tuning)?;
    let copies = COPIES_BYTES.div_ceil(weight.bytes()).min(16);
    let most = times.iter().map(|(rows, _)| *rows).max().unwrap_or(1);
    let out_element = weight.out_element();
    let memory = |bytes| DeviceMemory::new(device, bytes);
    let (x, weights) = (memory(most * weight.inputs * 2)?, memory(copies * weight.bytes())?);
    let out = memory(most * weight.outputs * out_element.bytes())?;
    // All alike, numbers take so little power that large products run a tenth faster than real ones.
    let compiler = Compiler::new(device, options.kernel_cache.clone())?;
    let random = RandomFill::new(&compiler, ElementType::Bf16)?;
    for (key, memory) in [(1, &x), (2, &weights)] {
        random.fill(&stream, memory.address(), memory.bytes() as u64 / 2, key, (0.0, 1.0))?;
    }
    let product = |rows, copy: usize| Product {
        x: x.address(),
        weight: weights.address() + (copy % copies * weight.bytes()) as u64,
        bias: None,
        out: out.address(),
        rows,
        outputs: weight.outputs,
        inputs: weight.inputs,
        x_stride: weight.inputs,
        out_stride: weight.outputs,
        element: ElementType::Bf16,
        out_element,
    };
    let mut library_us = Vec::with_capacity(times.len());
    for &(rows, _) in times {
        matmul.run(&stream, &product(rows, 0))?;
        let turns = 2 * copies;
        let all = || (0..turns).try_for_each(|turn| matmul.run(&stream, &product(rows, turn)));
        let graph = stream.capture(all)?;
        graph.launch(&stream)?;
        let mut least = f64::INFINITY;
        for _ in 0..3 {
            least = least.min(stream.time_us(|| graph.launch(&stream))?.into());
        }
        library_us.push(least / turns as f64);
    }
    Ok(library_us)
}
