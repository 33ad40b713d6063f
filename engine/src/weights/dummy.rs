//! Random weights of a model's shapes, for tests and for measuring without a download.

use std::borrow::Cow;

use half::{bf16, f16};

use super::{Tensor, TensorSpec, WeightDtype};
use crate::config::ModelConfig;
use crate::sampler::philox::Philox;

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
        let values = self.uniform(&spec.name, spec.elements()).map(|u| center + spread * u);
        spec.tensor(self.dtype, Cow::Owned(encode(self.dtype, values)))
    }

    /// `count` numbers on [-1, 1], a function of seed and name.
    fn uniform(&self, name: &str, count: usize) -> impl Iterator<Item = f32> {
        let digest = blake3::hash(name.as_bytes());
        let stream = u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("32 bytes"));
        let generator = Philox::new(self.seed ^ stream);
        (0..count.div_ceil(4) as u32)
            .flat_map(move |block| generator.block([block, 0, 0, 0]))
            .take(count)
            .map(|bits| (bits as i32) as f32 / i32::MAX as f32)
    }
}

fn encode(dtype: WeightDtype, values: impl Iterator<Item = f32>) -> Vec<u8> {
    match dtype {
        WeightDtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        WeightDtype::Bf16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        WeightDtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
    }
}
