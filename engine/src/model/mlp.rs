//! The MLP, the part of a layer that sees each token alone. One module a kind.

mod gated;

use super::load::Loader;
use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::config::layer::MlpSpec;
use crate::error::EngineError;
use gated::Gated;

/// A layer's MLP, of any kind.
pub(super) enum Mlp<B: Backend> {
    Gated(Gated<B>),
}

/// Activations that MLPs of every kind in a model need.
pub(super) struct Scratch<B: Backend> {
    gated: gated::Scratch<B>,
}

// === impl Mlp ===

impl<B: Backend> Mlp<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, '_, B>,
        spec: &MlpSpec,
    ) -> Result<Self, EngineError> {
        match spec {
            MlpSpec::Gated(spec) => Ok(Self::Gated(Gated::load(loader, spec)?)),
        }
    }

    /// - `x`: `[tokens, hidden]`, normed.
    /// - `out`: `[tokens, hidden]`, to be added to the residual stream.
    pub(super) fn run(
        &self,
        backend: &mut B,
        x: &B::Buffer,
        scratch: &mut Scratch<B>,
        out: &mut B::Buffer,
    ) -> Result<(), EngineError> {
        match self {
            Self::Gated(part) => part.run(backend, x, &mut scratch.gated, out),
        }
    }
}

// === impl Scratch ===

impl<B: Backend> Scratch<B> {
    pub(super) fn new(config: &ModelConfig, backend: &mut B) -> Result<Self, EngineError> {
        Ok(Self { gated: gated::Scratch::new(config.intermediate_size as usize, backend)? })
    }
}
