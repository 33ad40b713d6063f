//! Attention, the part of a layer that reads other tokens. One module a kind.

mod grouped;

use super::load::Loader;
use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::config::layer::AttentionSpec;
use crate::error::EngineError;
use grouped::Grouped;

/// A layer's attention, of any kind.
pub(super) enum Attention<B: Backend> {
    Grouped(Grouped<B>),
}

/// Activations that attention of every kind in a model needs.
pub(super) struct Scratch<B: Backend> {
    grouped: grouped::Scratch<B>,
}

// === impl Attention ===

impl<B: Backend> Attention<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, '_, B>,
        layer: u32,
        spec: &AttentionSpec,
    ) -> Result<Self, EngineError> {
        match spec {
            AttentionSpec::Grouped(spec) => Ok(Self::Grouped(Grouped::load(loader, layer, spec)?)),
        }
    }

    /// Computes what attention sees of `x`, and writes what later tokens see to the layer's pages.
    ///
    /// - `x`: `[tokens, hidden]`, normed.
    pub(super) fn write(
        &self,
        backend: &mut B,
        batch: &B::Batch,
        x: &B::Buffer,
        scratch: &mut Scratch<B>,
    ) -> Result<(), EngineError> {
        match self {
            Self::Grouped(part) => part.write(backend, batch, x, &mut scratch.grouped),
        }
    }

    /// Attends, for all rows.
    ///
    /// - `out`: `[tokens, hidden]`, to be added to the residual stream.
    pub(super) fn attend(
        &self,
        backend: &mut B,
        batch: &B::Batch,
        scratch: &mut Scratch<B>,
        out: &mut B::Buffer,
    ) -> Result<(), EngineError> {
        match self {
            Self::Grouped(part) => part.attend(backend, batch, &mut scratch.grouped, out),
        }
    }

    /// Attends, for the rows that are kept.
    ///
    /// - `out`: `[kept, hidden]`.
    pub(super) fn attend_kept(
        &self,
        backend: &mut B,
        batch: &B::Batch,
        scratch: &mut Scratch<B>,
        out: &mut B::Buffer,
    ) -> Result<(), EngineError> {
        match self {
            Self::Grouped(part) => part.attend_kept(backend, batch, &mut scratch.grouped, out),
        }
    }
}

// === impl Scratch ===

impl<B: Backend> Scratch<B> {
    pub(super) fn new(config: &ModelConfig, backend: &mut B) -> Result<Self, EngineError> {
        Ok(Self { grouped: grouped::Scratch::new(config.head_shape(), backend)? })
    }
}
