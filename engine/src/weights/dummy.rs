//! Random weights of a model's shapes, for tests and for measuring without a download.

use super::{Tensor, TensorData, Uniform, WeightDtype};

/// Gives every tensor the same numbers whenever it is asked with the same seed.
#[derive(Debug)]
pub(super) struct DummyWeights {
    seed: u64,
    dtype: WeightDtype,
}

// === impl DummyWeights ===

impl DummyWeights {
    /// - `dtype`: `None` for bfloat16.
    pub(super) fn new(seed: u64, dtype: Option<WeightDtype>) -> Self {
        Self { seed, dtype: dtype.unwrap_or(WeightDtype::Bf16) }
    }

    pub(super) fn dtype(&self) -> WeightDtype {
        self.dtype
    }

    /// Norms near 1, biases near 0, matrices of variance `1 / cols`: activations then keep their
    /// scale through the layers, so that a random model's logits are as lively as a trained one's.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Tensor<'static> {
        let is_norm = name.ends_with("norm.weight");
        let (center, spread) = match shape {
            [_] if is_norm => (1.0, 0.1),
            // A uniform variable on [-a, a] has variance a^2 / 3.
            [_, cols] => (0.0, (3.0 / *cols as f32).sqrt()),
            _ => (0.0, 0.1),
        };
        let digest = blake3::hash(name.as_bytes());
        let stream = u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("32 bytes"));
        let uniform = Uniform { key: self.seed ^ stream, center, spread };
        Tensor::new(self.dtype, shape, TensorData::Random(uniform))
    }
}
