//! Attention whose query heads share key/value heads in groups, over rotated keys and values in pages.

use crate::backend::{Backend, Norm, PagedHeads};
use crate::config::HeadShape;
use crate::config::layer::GroupedSpec;
use crate::error::EngineError;
use crate::model::load::{Loader, Projection};

/// One layer's.
pub(in crate::model) struct Grouped<B: Backend> {
    layer: u32,
    heads: HeadShape,
    window: Option<u32>,
    /// Of the norms.
    eps: f32,
    /// Queries, keys and values, fused.
    qkv: Projection<B>,
    q_norm: Option<B::Vector>,
    k_norm: Option<B::Vector>,
    output: Projection<B>,
}

/// Activations.
pub(super) struct Scratch<B: Backend> {
    /// `[tokens, qkv width]`.
    qkv: B::Buffer,
    /// `[kept, qkv width]`.
    kept_qkv: B::Buffer,
    /// `[tokens, q width]`.
    attended: B::Buffer,
}

// === impl Grouped ===

impl<B: Backend> Grouped<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, '_, B>,
        layer: u32,
        spec: &GroupedSpec,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            layer,
            heads: spec.heads,
            window: spec.window,
            eps: loader.config.rms_norm_eps,
            qkv: loader.projection(&spec.qkv)?,
            q_norm: spec.q_norm.as_ref().map(|norm| loader.vector(norm)).transpose()?,
            k_norm: spec.k_norm.as_ref().map(|norm| loader.vector(norm)).transpose()?,
            output: loader.projection(&spec.output)?,
        })
    }

    /// `x` to queries, keys and values, and the latter two on to the layer's pages.
    pub(super) fn write(
        &self,
        backend: &mut B,
        batch: &B::Batch,
        x: &B::Buffer,
        scratch: &mut Scratch<B>,
    ) -> Result<(), EngineError> {
        backend.linear(x, self.qkv.as_linear(), &mut scratch.qkv)?;
        backend.rope_and_cache(batch, &self.heads(), &mut scratch.qkv)
    }

    pub(super) fn attend(
        &self,
        backend: &mut B,
        batch: &B::Batch,
        Scratch { qkv, attended, .. }: &mut Scratch<B>,
        out: &mut B::Buffer,
    ) -> Result<(), EngineError> {
        backend.attention(batch, &self.heads(), qkv, attended)?;
        backend.linear(attended, self.output.as_linear(), out)
    }

    pub(super) fn attend_kept(
        &self,
        backend: &mut B,
        batch: &B::Batch,
        Scratch { qkv, kept_qkv, attended }: &mut Scratch<B>,
        out: &mut B::Buffer,
    ) -> Result<(), EngineError> {
        backend.keep(batch, qkv, kept_qkv)?;
        backend.attention_of_kept(batch, &self.heads(), kept_qkv, attended)?;
        backend.linear(attended, self.output.as_linear(), out)
    }

    fn heads(&self) -> PagedHeads<'_, B> {
        let norm = |weight| Norm { weight, eps: self.eps };
        PagedHeads {
            layer: self.layer,
            shape: self.heads,
            window: self.window,
            q_norm: self.q_norm.as_ref().map(norm),
            k_norm: self.k_norm.as_ref().map(norm),
        }
    }
}

// === impl Scratch ===

impl<B: Backend> Scratch<B> {
    pub(super) fn new(heads: HeadShape, backend: &mut B) -> Result<Self, EngineError> {
        Ok(Self {
            qkv: backend.buffer(heads.qkv_width())?,
            attended: backend.buffer(heads.q_width())?,
            kept_qkv: backend.kept_buffer(heads.qkv_width())?,
        })
    }
}
