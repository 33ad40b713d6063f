//! Single operations at a model's sizes, as the engine does them, beside the best there are.

use anyhow::Result;
use engine::CudaOptions;
use engine::cuda::measure::{ProductSize, Yardstick};

use super::{Group, Row, Run};
use crate::ceilings::Ceilings;
use crate::kernels::products::Weight;
use crate::kernels::{attention, memory, products};

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
pub(super) fn attention(
    run: &mut Run<'_>,
    yardstick: &Yardstick,
    options: &CudaOptions,
) -> Result<()> {
    let Some(ceilings) = run.report.ceilings else { return Ok(()) };
    let (config, limit) = (run.config.clone(), run.config.max_position as usize);
    let is_known = run.report.shape == "llama-3.1-8b";
    for (tokens, best) in PREFILL.into_iter().filter(|(tokens, _)| *tokens <= limit) {
        let us = attention::prefill_us(&config, options, tokens)?;
        let rate = attention::prefill_flops(&config, tokens) / us / 1e6;
        let row = Row::rate(Group::Attention, format!("prompt of {tokens}"), rate, "TFLOP/s")
            .with_floor(Some(ceilings.product_tflop_per_s))
            .with_peer(is_known.then_some(Ceilings::H200.product_tflop_per_s / best))
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
    softmax(run, yardstick)
}

fn softmax(run: &mut Run<'_>, yardstick: &Yardstick) -> Result<()> {
    let us = yardstick.softmax(memory::SOFTMAX_ROWS)?.time_us()?;
    let rate = memory::softmax_bytes() / us / 1e3;
    let row = Row::rate(Group::Attention, "softmax 4096 x 8192 f32", rate, "GB/s")
        .with_floor(run.report.ceilings.map(|ceilings| ceilings.copy_gb_per_s))
        .with_note(format!("{us:.1} us"));
    run.row(row);
    Ok(())
}

/// The model's products: as the engine does them, with the library's time beside.
pub(super) fn products(
    run: &mut Run<'_>,
    yardstick: &Yardstick,
    options: &CudaOptions,
) -> Result<()> {
    let Some(ceilings) = run.report.ceilings else { return Ok(()) };
    for weight in products::weights(&run.config) {
        let times = products::times_us(&run.config, options, weight, run.sizes.product_rows)?;
        let library = library_us(yardstick, weight, &times)?;
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
fn library_us(yardstick: &Yardstick, weight: Weight, times: &[(usize, f64)]) -> Result<Vec<f64>> {
    let copies = COPIES_BYTES.div_ceil(weight.bytes()).min(16);
    let product = yardstick.library_product(ProductSize {
        rows_max: times.iter().map(|(rows, _)| *rows).max().unwrap_or(1),
        outputs: weight.outputs,
        inputs: weight.inputs,
        out_element: weight.out_element(),
        copies,
        spread: 1.0,
    })?;
    times.iter().map(|&(rows, _)| Ok(product.time_us(rows, 2 * copies)?)).collect()
}
