//! The identity of a model: who may exchange KV blocks with whom.

use safetensors::Dtype;
use serde::Serialize;

use super::{StoredTensor, TensorData, Uniform, WeightDtype};

/// Tensors up to this size are hashed whole.
const WHOLE_BYTES_MAX: usize = 64 << 10;

/// Larger ones are sampled at this many places, evenly spread from first to last byte.
const SAMPLES: usize = 16;

/// Bytes hashed at each place.
const SAMPLE_BYTES: usize = 4 << 10;

/// Digests a configuration and weights.
///
/// Tensors are hashed as they are loaded, by name, dtype, shape and sampled bytes, so the digest
/// doesn't depend on how a checkpoint is cut into files. A fine-tune changes every matrix
/// everywhere, so 64 KiB of each tell two models apart at a cost that doesn't grow with the model.
#[derive(Debug)]
pub(crate) struct Fingerprinter(blake3::Hasher);

// === impl Fingerprinter ===

impl Fingerprinter {
    /// - `config`: what of the configuration changes a computed number.
    pub(crate) fn new(config: &impl Serialize) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("baton engine fingerprint v1");
        let config = serde_json::to_vec(config).expect("a configuration has only plain values");
        update_framed(&mut hasher, &config);
        Self(hasher)
    }

    pub(crate) fn tensor(&mut self, name: &str, tensor: &StoredTensor<'_>) {
        update_framed(&mut self.0, name.as_bytes());
        update_framed(&mut self.0, name_of(tensor.dtype).as_bytes());
        self.0.update(&(tensor.rows as u64).to_le_bytes());
        self.0.update(&(tensor.cols as u64).to_le_bytes());
        let bytes = match tensor.data {
            TensorData::Stored(bytes) => bytes,
            TensorData::Random(Uniform { key, center, spread }) => {
                self.0.update(&key.to_le_bytes());
                self.0.update(&center.to_le_bytes());
                self.0.update(&spread.to_le_bytes());
                return;
            }
        };
        if bytes.len() <= WHOLE_BYTES_MAX {
            self.0.update(bytes);
            return;
        }
        let last = bytes.len() - SAMPLE_BYTES;
        for sample in 0..SAMPLES {
            let start = last / (SAMPLES - 1) * sample;
            self.0.update(&bytes[start..start + SAMPLE_BYTES]);
        }
    }

    /// 32 hex digits.
    pub(crate) fn finish(self) -> String {
        self.0.finalize().to_hex()[..32].to_owned()
    }
}

/// What fingerprints call a type: as configurations do, where these have a name for it.
fn name_of(stored: Dtype) -> String {
    WeightDtype::of(stored).map_or_else(|| stored.to_string(), |dtype| dtype.name().to_owned())
}

/// Hashes length and bytes, so that neighbours can't run into each other.
fn update_framed(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::ModelConfig;
    use crate::testing::tiny_config;
    use crate::weights::Tensor;

    fn digest(config: &ModelConfig, name: &str, bytes: &[u8]) -> String {
        let mut fingerprinter = Fingerprinter::new(config);
        let tensor = Tensor {
            dtype: WeightDtype::F32,
            rows: 1,
            cols: bytes.len() / 4,
            data: TensorData::Stored(bytes),
        };
        fingerprinter.tensor(name, &StoredTensor::from(&tensor));
        fingerprinter.finish()
    }

    #[rstest]
    #[case::small(1 << 10)]
    #[case::sampled(1 << 20)]
    fn differs_with_the_first_and_the_last_byte(#[case] len: usize) {
        let config = tiny_config();
        let plain = vec![0u8; len];
        let (mut first, mut last) = (plain.clone(), plain.clone());
        first[0] = 1;
        last[len - SAMPLES] = 1;
        let digests = [&plain, &first, &last].map(|bytes| digest(&config, "w", bytes));
        assert_ne!(digests[0], digests[1]);
        assert_ne!(digests[0], digests[2]);
        assert_eq!(digests[0], digest(&config, "w", &plain));
    }

    #[test]
    fn differs_with_name_and_configuration_but_not_with_stop_tokens() {
        let config = tiny_config();
        let mut other_eps = config.clone();
        other_eps.rms_norm_eps = 1e-5;
        let mut other_eos = config.clone();
        other_eos.eos_token_ids = vec![7];
        assert_ne!(digest(&config, "a", &[0; 8]), digest(&config, "b", &[0; 8]));
        assert_ne!(digest(&config, "a", &[0; 8]), digest(&other_eps, "a", &[0; 8]));
        assert_eq!(digest(&config, "a", &[0; 8]), digest(&other_eos, "a", &[0; 8]));
    }
}
