//! Weights on their way from a checkpoint to the device.

use crate::backend::{Backend, Linear};
use crate::config::ModelConfig;
use crate::config::layer::ProjectionSpec;
use crate::error::EngineError;
use crate::weights::{MatrixSpec, VectorSpec, WeightReader};

/// Loads one thing after another.
pub(super) struct Loader<'a, 'r, B> {
    pub(super) config: &'a ModelConfig,
    pub(super) reader: &'a mut WeightReader<'r>,
    pub(super) backend: &'a mut B,
}

/// A weight matrix and perhaps a bias.
pub(super) struct Projection<B: Backend> {
    weight: B::Matrix,
    bias: Option<B::Vector>,
}

// === impl Projection ===

impl<B: Backend> Projection<B> {
    pub(super) fn as_linear(&self) -> Linear<'_, B> {
        Linear { weight: &self.weight, bias: self.bias.as_ref() }
    }
}

// === impl Loader ===

impl<B: Backend> Loader<'_, '_, B> {
    pub(super) fn projection(
        &mut self,
        spec: &ProjectionSpec,
    ) -> Result<Projection<B>, EngineError> {
        let weight = self.matrix(&spec.weights)?;
        let has_bias = !spec.biases.is_empty();
        let bias = has_bias.then(|| self.vectors(&spec.biases)).transpose()?;
        Ok(Projection { weight, bias })
    }

    pub(super) fn matrix(&mut self, specs: &[MatrixSpec]) -> Result<B::Matrix, EngineError> {
        let backend = &mut *self.backend;
        self.reader.matrices(specs, |matrices| backend.matrix(matrices))
    }

    pub(super) fn vector(&mut self, spec: &VectorSpec) -> Result<B::Vector, EngineError> {
        self.vectors(std::slice::from_ref(spec))
    }

    fn vectors(&mut self, specs: &[VectorSpec]) -> Result<B::Vector, EngineError> {
        let backend = &mut *self.backend;
        self.reader.vectors(specs, |vectors| backend.vector(vectors))
    }
}
