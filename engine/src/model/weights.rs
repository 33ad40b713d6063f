//! A model's weights on the device.

use super::attention::Attention;
use super::mlp::Mlp;
use crate::backend::{Backend, Linear};
use crate::config::ModelConfig;
use crate::config::layer::{LayerSpec, ProjectionSpec};
use crate::error::EngineError;
use crate::weights::{MatrixSpec, VectorSpec, WeightReader};

/// All of them.
pub(super) struct Weights<B: Backend> {
    pub(super) embedding: B::Matrix,
    pub(super) layers: Vec<Layer<B>>,
    pub(super) norm: B::Vector,
    /// Absent where the embedding is used for it.
    head: Option<B::Matrix>,
}

/// One transformer layer.
pub(super) struct Layer<B: Backend> {
    pub(super) attention_norm: B::Vector,
    pub(super) attention: Attention<B>,
    pub(super) mlp_norm: B::Vector,
    pub(super) mlp: Mlp<B>,
}

/// A weight matrix and perhaps a bias.
pub(super) struct Projection<B: Backend> {
    weight: B::Matrix,
    bias: Option<B::Vector>,
}

/// Loads one thing after another.
pub(super) struct Loader<'a, 'r, B> {
    pub(super) config: &'a ModelConfig,
    pub(super) reader: &'a mut WeightReader<'r>,
    pub(super) backend: &'a mut B,
}

/// How many matrices and vectors a model reads from its checkpoint.
pub(super) fn count(config: &ModelConfig) -> usize {
    let layers: usize = (0..config.layers).map(|index| config.layer(index).count()).sum();
    2 + usize::from(!config.tie_embeddings) + layers
}

// === impl Weights ===

impl<B: Backend> Weights<B> {
    pub(super) fn load(mut loader: Loader<'_, '_, B>) -> Result<Self, EngineError> {
        let config = loader.config;
        let embedding = loader.matrix(&[config.embedding()])?;
        let layers =
            (0..config.layers).map(|index| loader.layer(index)).collect::<Result<_, _>>()?;
        let norm = loader.vector(&config.norm())?;
        let head = match config.tie_embeddings {
            true => None,
            false => Some(loader.matrix(&[config.head()])?),
        };
        Ok(Self { embedding, layers, norm, head })
    }

    /// The matrix that turns hidden states into logits.
    pub(super) fn head(&self) -> &B::Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

// === impl Projection ===

impl<B: Backend> Projection<B> {
    pub(super) fn as_linear(&self) -> Linear<'_, B> {
        Linear { weight: &self.weight, bias: self.bias.as_ref() }
    }
}

// === impl Loader ===

impl<B: Backend> Loader<'_, '_, B> {
    fn layer(&mut self, index: u32) -> Result<Layer<B>, EngineError> {
        let LayerSpec { attention_norm, attention, mlp_norm, mlp } = self.config.layer(index);
        Ok(Layer {
            attention_norm: self.vector(&attention_norm)?,
            attention: Attention::load(self, index, &attention)?,
            mlp_norm: self.vector(&mlp_norm)?,
            mlp: Mlp::load(self, &mlp)?,
        })
    }

    pub(super) fn projection(
        &mut self,
        spec: &ProjectionSpec,
    ) -> Result<Projection<B>, EngineError> {
        let weight = self.matrix(&spec.weights)?;
        let has_bias = !spec.biases.is_empty();
        let bias = has_bias.then(|| self.vectors(&spec.biases)).transpose()?;
        Ok(Projection { weight, bias })
    }

    fn matrix(&mut self, specs: &[MatrixSpec]) -> Result<B::Matrix, EngineError> {
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
