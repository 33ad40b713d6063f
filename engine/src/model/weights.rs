//! A model's weights on the device.

use super::attention::Attention;
use super::load::Loader;
use super::mlp::Mlp;
use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::config::layer::LayerSpec;
use crate::error::EngineError;

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
        let layers = (0..config.layers)
            .map(|index| Layer::load(&mut loader, index))
            .collect::<Result<_, _>>()?;
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

// === impl Layer ===

impl<B: Backend> Layer<B> {
    fn load(loader: &mut Loader<'_, '_, B>, index: u32) -> Result<Self, EngineError> {
        let LayerSpec { attention_norm, attention, mlp_norm, mlp } = loader.config.layer(index);
        Ok(Self {
            attention_norm: loader.vector(&attention_norm)?,
            attention: Attention::load(loader, index, &attention)?,
            mlp_norm: loader.vector(&mlp_norm)?,
            mlp: Mlp::load(loader, &mlp)?,
        })
    }
}
