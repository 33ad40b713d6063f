//! Attention of a step: decode rows by one kernel, prompt chunks by another, which depends on the
//! GPU and the model.

pub(super) mod decode;
pub(super) mod portable;
pub(super) mod prefill;

use std::sync::Arc;

use self::decode::{DecodeAttention, DecodeRead, DecodeShape};
use self::portable::{PortableAttention, PortableShape, PrefillRead};
use self::prefill::{PagePool, PrefillAttention, PrefillShape, TiledRead};
use super::compile::Compiler;
use super::driver::address::Address;
use super::driver::device::Stream;
use super::driver::element::ElementType;
use super::kv::CudaKv;
use super::options::CudaOptions;
use super::step::batch::{self, Chunk, CudaBatch, DecodeRows, KeptRows, PrefillRows};
use super::weights::tensor::CudaBuffer;
use crate::config::HeadShape;
use crate::error::EngineError;
use kv_cache::KvRegion as _;

/// The kernels for one model's pages.
pub(super) struct PagedAttention {
    kv: Arc<CudaKv>,
    decode: DecodeAttention,
    prefill: Prefill,
    heads: HeadShape,
    scale: f32,
}

/// What does prompt chunks.
enum Prefill {
    Tiled(Box<PrefillAttention>),
    Portable(PortableAttention),
}

/// Which rows see what: one layer's attention, apart from the rows.
#[derive(Clone, Copy)]
struct View {
    qkv: Address,
    /// Rows of `qkv` and `out`.
    rows: usize,
    layer: u32,
    out: Address,
    window: Option<u32>,
}

/// Where decode rows are attended to.
#[derive(Clone, Copy)]
struct Place {
    multiprocessors: u32,
    /// See [`DecodeRead`].
    overlaps: bool,
    beside: bool,
}

/// Operations that prompts' attention does in the time in which a byte is read for decode rows (an H200: 560 TFLOP/s,
/// 4.4 TB/s).
const OPERATIONS_A_BYTE: f64 = 127.0;

/// The memory is kept busy by the inverse of so many of all multiprocessors.
const READERS: f64 = 1.6;

// === impl PagedAttention ===

impl PagedAttention {
    /// Compiles, or finds, the kernels.
    ///
    /// # Errors
    /// [`EngineError::Device`] for a shape that they don't do.
    pub(super) fn new(
        compiler: &Compiler,
        stream: &Stream,
        kv: &Arc<CudaKv>,
        (element, heads): (ElementType, HeadShape),
        options: &CudaOptions,
    ) -> Result<Self, EngineError> {
        let block_tokens = kv.layout().block_tokens() as usize;
        let rows_max = (options.sequences_max as usize).next_multiple_of(batch::ROWS_STEP);
        let decode = DecodeShape { element, heads, block_tokens, rows_max };
        let tiled = PrefillShape {
            element,
            heads,
            block_tokens,
            rows_max: options.step_rows_max as usize,
            sequences_max: options.sequences_max as usize,
        };
        Ok(Self {
            kv: Arc::clone(kv),
            decode: DecodeAttention::new(compiler, stream, decode)?,
            prefill: Prefill::new(compiler, stream, kv, tiled)?,
            heads,
            scale: (heads.head_dim as f32).sqrt().recip(),
        })
    }

    /// Divides a step's prompt chunks, once for all layers.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the plan's copy fails.
    pub(super) fn plan(
        &mut self,
        stream: &Stream,
        rows: &mut PrefillRows,
    ) -> Result<(), EngineError> {
        if let Prefill::Tiled(kernel) = &mut self.prefill {
            rows.plan = Some(kernel.plan(stream, rows)?);
        }
        Ok(())
    }

    /// Attention of all rows of a step, in one layer.
    ///
    /// # Errors
    /// [`EngineError::Device`] if a launch fails.
    pub(super) fn run(
        &self,
        stream: &Stream,
        batch: &CudaBatch,
        (layer, window): (u32, Option<u32>),
        qkv: &CudaBuffer,
        out: &CudaBuffer,
    ) -> Result<(), EngineError> {
        let view = View { qkv: qkv.address(), rows: batch.rows, layer, out: out.address(), window };
        let all = stream.multiprocessors();
        let for_prompts = self.share_of_prompts(batch, all);
        if let Some(rows) = &batch.prefill {
            self.run_prefill(stream, view, rows, for_prompts.unwrap_or(all))?;
        }
        if let Some(rows) = &batch.decode {
            let place = match for_prompts {
                Some(taken) => Place { multiprocessors: all - taken, overlaps: true, beside: true },
                None => Place { multiprocessors: all, overlaps: true, beside: false },
            };
            self.run_decode(stream, view, rows, place)?;
        }
        Ok(())
    }

    /// Attention of the rows that are kept, in one layer. Unlike a decode row's, a chunk's keys were just
    /// written.
    ///
    /// - `qkv`, `out`: of these rows alone.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the launch fails.
    pub(super) fn run_kept(
        &self,
        stream: &Stream,
        kept: &KeptRows,
        (layer, window): (u32, Option<u32>),
        qkv: &CudaBuffer,
        out: &CudaBuffer,
    ) -> Result<(), EngineError> {
        let rows = &kept.alone;
        let (qkv, out) = (qkv.address(), out.address());
        let view = View { qkv, rows: rows.count, layer, out, window };
        let multiprocessors = stream.multiprocessors();
        let place = Place { multiprocessors, overlaps: false, beside: false };
        self.run_decode(stream, view, rows, place)
    }

    /// Multiprocessors for prompts' attention where decode rows' runs beside it: both end at about the same time. One
    /// is bound by arithmetic and the other by memory, which fewer multiprocessors than all keep busy.
    fn share_of_prompts(&self, batch: &CudaBatch, all: u32) -> Option<u32> {
        let (Some(prefill), Some(decode)) = (&batch.prefill, &batch.decode) else { return None };
        let HeadShape { kv_heads, head_dim, .. } = self.heads;
        let bytes = decode.context_tokens as f64 * (4 * kv_heads * head_dim) as f64;
        let computing = prefill.plan?.operations as f64 / OPERATIONS_A_BYTE / bytes.max(1.0);
        Some(share_of_prompts(computing, all))
    }

    fn run_decode(
        &self,
        stream: &Stream,
        view: View,
        rows: &DecodeRows,
        Place { multiprocessors, overlaps, beside }: Place,
    ) -> Result<(), EngineError> {
        let View { qkv, layer, out, window, .. } = view;
        let pages = self.kv.layer(layer);
        let DecodeRows { count, rows, contexts, tables, table_stride, .. } = *rows;
        let scale = self.scale;
        let read = DecodeRead {
            qkv,
            pages,
            out,
            count,
            rows,
            contexts,
            tables,
            table_stride,
            window,
            scale,
            multiprocessors,
            overlaps,
            beside,
        };
        self.decode.run(stream, &read)
    }

    fn run_prefill(
        &self,
        stream: &Stream,
        view: View,
        rows: &PrefillRows,
        multiprocessors: u32,
    ) -> Result<(), EngineError> {
        let View { qkv, rows: qkv_rows, layer, out, window } = view;
        let scale = self.scale;
        match &self.prefill {
            Prefill::Tiled(kernel) => {
                let plan = rows.plan.ok_or_else(|| {
                    EngineError::Device("a step's attention was not planned".to_owned())
                })?;
                let block_base = layer as usize * self.kv.blocks() as usize;
                let read = TiledRead {
                    qkv,
                    qkv_rows,
                    out,
                    rows,
                    plan,
                    block_base,
                    window,
                    scale,
                    multiprocessors,
                };
                kernel.run(stream, &read)
            }
            Prefill::Portable(kernel) => {
                let lengths: Vec<usize> =
                    rows.chunks.iter().map(|chunk: &Chunk| chunk.rows).collect();
                let read = PrefillRead {
                    qkv,
                    pages: self.kv.layer(layer),
                    out,
                    rows: &lengths,
                    first_rows: rows.first_rows,
                    lengths: rows.lengths,
                    contexts: rows.contexts,
                    tables: rows.tables,
                    table_stride: rows.table_stride,
                    window,
                    scale,
                };
                kernel.run(stream, &read)
            }
        }
    }
}

// === impl Prefill ===

impl Prefill {
    /// The kernel for Hopper where it does the shape, else the one that does all.
    fn new(
        compiler: &Compiler,
        stream: &Stream,
        kv: &CudaKv,
        shape: PrefillShape,
    ) -> Result<Self, EngineError> {
        if shape.is_supported(compiler.device()) {
            let pool = PagePool {
                address: kv.layer(0),
                layers: kv.layout().layers() as usize,
                blocks: kv.blocks() as usize,
            };
            let kernel = PrefillAttention::new(compiler, stream, shape, pool)?;
            return Ok(Self::Tiled(Box::new(kernel)));
        }
        let PrefillShape { element, heads, block_tokens, .. } = shape;
        let shape = PortableShape { element, heads, block_tokens };
        Ok(Self::Portable(PortableAttention::new(compiler, shape)?))
    }
}

/// Of `all` multiprocessors those for prompts, so that both kinds of attention end together.
///
/// - `computing`: the time that prompts take on all of them, over the time in which decode rows are read.
fn share_of_prompts(computing: f64, all: u32) -> u32 {
    let share = if computing <= 1.0 - READERS.recip() {
        computing
    } else {
        READERS * computing / (1.0 + READERS * computing)
    };
    ((share * f64::from(all)).ceil() as u32).clamp(1, all.saturating_sub(1).max(1))
}

/// Whether the kernels that take any model take these heads.
///
/// # Errors
/// [`EngineError::Device`] says which heads they take.
pub(super) fn validate_heads(shape: HeadShape) -> Result<(), EngineError> {
    let HeadShape { heads, kv_heads, head_dim } = shape;
    if !head_dim.is_multiple_of(8) || !(16..=256).contains(&head_dim) {
        return Err(EngineError::Device(format!(
            "attention: a head size of {head_dim}: a multiple of 8 from 16 to 256 is needed"
        )));
    }
    if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
        return Err(EngineError::Device(format!(
            "attention: {heads} heads, {kv_heads} key/value heads: these must divide those"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::next_to_nothing(0.001, 1)]
    #[case::short_prompts(0.16, 22)]
    #[case::where_memory_is_just_kept_busy(0.375, 50)]
    #[case::as_long_as_each_other(1.0, 82)]
    #[case::prompts_alone(1e9, 131)]
    fn both_kinds_of_attention_end_together(#[case] computing: f64, #[case] expected: u32) {
        assert_eq!(share_of_prompts(computing, 132), expected);
    }
}
