//! Random weights of a model's shapes, for tests and for measuring without a download.

use super::{Tensor, TensorData, TensorSpec, Uniform, WeightDtype};
use crate::config::ModelConfig;

/// Gives every tensor the same numbers whenever it is asked with the same seed.
#[derive(Debug)]
pub(super) struct DummyWeights {
    seed: u64,
    dtype: WeightDtype,
}

// === impl DummyWeights ===

impl DummyWeights {
    pub(super) fn new(seed: u64, config: &ModelConfig) -> Self {
        Self { seed, dtype: config.dtype.unwrap_or(WeightDtype::Bf16) }
    }

    pub(super) fn dtype(&self) -> WeightDtype {
        self.dtype
    }

    /// Norms near 1, biases near 0, matrices of variance `1 / cols`: activations then keep their
    /// scale through the layers, so that a random model's logits are as lively as a trained one's.
    pub(super) fn tensor(&self, spec: &TensorSpec) -> Tensor<'static> {
        let is_norm = spec.name.ends_with("norm.weight");
        let cols = *spec.shape.last().expect("a spec has one or two dimensions");
        let (center, spread) = match spec.shape.len() {
            1 if is_norm => (1.0, 0.1),
            1 => (0.0, 0.1),
            // A uniform variable on [-a, a] has variance a^2 / 3.
            _ => (0.0, (3.0 / cols as f32).sqrt()),
        };
        let digest = blake3::hash(spec.name.as_bytes());
        let stream = u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("32 bytes"));
        let uniform = Uniform { key: self.seed ^ stream, center, spread };
        spec.tensor(self.dtype, TensorData::Random(uniform))
    }
}
