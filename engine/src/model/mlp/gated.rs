//! `down(silu(gate(x)) * up(x))`.

use crate::backend::Backend;
use crate::config::layer::GatedSpec;
use crate::error::EngineError;
use crate::model::load::{Loader, Projection};

/// One layer's.
pub(in crate::model) struct Gated<B: Backend> {
    /// Gate and up, fused.
    gate_up: Projection<B>,
    down: Projection<B>,
}

/// Activations.
pub(super) struct Scratch<B: Backend> {
    /// `[tokens, 2 * width]`.
    gate_up: B::Buffer,
    /// `[tokens, width]`.
    activated: B::Buffer,
}

// === impl Gated ===

impl<B: Backend> Gated<B> {
    pub(super) fn load(
        loader: &mut Loader<'_, '_, B>,
        spec: &GatedSpec,
    ) -> Result<Self, EngineError> {
        let gate_up = loader.projection(&spec.gate_up)?;
        Ok(Self { gate_up, down: loader.projection(&spec.down)? })
    }

    pub(super) fn run(
        &self,
        backend: &mut B,
        x: &B::Buffer,
        Scratch { gate_up, activated }: &mut Scratch<B>,
        out: &mut B::Buffer,
    ) -> Result<(), EngineError> {
        backend.gated(x, self.gate_up.as_linear(), gate_up, activated)?;
        backend.linear(activated, self.down.as_linear(), out)
    }
}

// === impl Scratch ===

impl<B: Backend> Scratch<B> {
    /// - `width`: of the gates.
    pub(super) fn new(width: usize, backend: &mut B) -> Result<Self, EngineError> {
        Ok(Self { gate_up: backend.buffer(2 * width)?, activated: backend.buffer(width)? })
    }
}
