//! The element types that tensors are stored in.

use kv_cache::KvCodec;
use safetensors::Dtype;
use serde::Serialize;

/// The element type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum WeightDtype {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

// === impl WeightDtype ===

impl WeightDtype {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The name used in configuration files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// What keeps such numbers as they are in KV memory.
    #[must_use]
    pub fn codec(self) -> KvCodec {
        match self {
            Self::F32 => KvCodec::F32,
            Self::Bf16 => KvCodec::BF16,
            Self::F16 => KvCodec::F16,
        }
    }

    /// The type that pages in `codec` are arrays of, if they are.
    #[must_use]
    pub fn kept_in(codec: &KvCodec) -> Option<Self> {
        let all = [Self::F32, Self::Bf16, Self::F16];
        all.into_iter().find(|dtype| codec.plain() == Some(dtype.codec().numbers))
    }

    /// The one that a checkpoint's files call so.
    pub(crate) fn of(stored: Dtype) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|dtype| dtype.stored() == stored)
    }

    /// What a checkpoint's files call it.
    pub(crate) fn stored(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// The one of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|dtype| dtype.name() == name)
    }
}
