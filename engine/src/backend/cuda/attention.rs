//! Attention of a step: decode rows by one kernel, prompt chunks by another.

use std::sync::Arc;

use super::batch::{self, Chunk, CudaBatch, DecodeRows, PrefillRows};
use super::compiler::Compiler;
use super::decode_attention::{DecodeAttention, DecodeRead, DecodeShape};
use super::device::Stream;
use super::load;
use super::options::CudaOptions;
use super::pages::CudaKv;
use super::portable_attention::{PortableAttention, PortableShape, PrefillRead};
use super::tensor::CudaBuffer;
use crate::config::HeadShape;
use crate::error::EngineError;
use kv_cache::KvRegion as _;

/// The kernels for one model's pages.
pub(super) struct PagedAttention {
    kv: Arc<CudaKv>,
    decode: DecodeAttention,
    portable: PortableAttention,
    scale: f32,
}

/// Which rows see what: one layer's attention, apart from the rows.
#[derive(Clone, Copy)]
struct View {
    qkv: u64,
    pages: u64,
    out: u64,
    window: Option<u32>,
}

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
        heads: HeadShape,
        options: &CudaOptions,
    ) -> Result<Self, EngineError> {
        let layout = kv.layout();
        let element = load::element_of(layout.dtype)?;
        let block_tokens = layout.block_tokens as usize;
        let rows_max = (options.sequences_max as usize).next_multiple_of(batch::ROWS_STEP);
        let decode = DecodeShape { element, heads, block_tokens, rows_max };
        Ok(Self {
            kv: Arc::clone(kv),
            decode: DecodeAttention::new(compiler, stream, decode)?,
            portable: PortableAttention::new(
                compiler,
                PortableShape { element, heads, block_tokens },
            )?,
            scale: (heads.head_dim as f32).sqrt().recip(),
        })
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
        let pages = self.kv.layer(layer);
        let view = View { qkv: qkv.address(), pages, out: out.address(), window };
        if let Some(rows) = &batch.decode {
            self.run_decode(stream, view, rows)?;
        }
        if let Some(rows) = &batch.prefill {
            self.run_prefill(stream, view, rows)?;
        }
        Ok(())
    }

    fn run_decode(
        &self,
        stream: &Stream,
        view: View,
        rows: &DecodeRows,
    ) -> Result<(), EngineError> {
        let View { qkv, pages, out, window } = view;
        let DecodeRows { count, rows, contexts, tables, table_stride } = *rows;
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
        };
        self.decode.run(stream, &read)
    }

    fn run_prefill(
        &self,
        stream: &Stream,
        view: View,
        rows: &PrefillRows,
    ) -> Result<(), EngineError> {
        let View { qkv, pages, out, window } = view;
        let lengths: Vec<usize> = rows.chunks.iter().map(|chunk: &Chunk| chunk.rows).collect();
        let read = PrefillRead {
            qkv,
            pages,
            out,
            rows: &lengths,
            first_rows: rows.first_rows,
            lengths: rows.lengths,
            contexts: rows.contexts,
            tables: rows.tables,
            table_stride: rows.table_stride,
            window,
            scale: self.scale,
        };
        self.portable.run(stream, &read)
    }
}
