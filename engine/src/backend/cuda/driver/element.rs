//! The element types that kernels compute with.

use half::{bf16, f16};
use kv_cache::KvCodec;

/// The type of one number in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
    /// 32-bit float: sums and logits, never weights or activations.
    F32,
}

// === impl ElementType ===

impl ElementType {
    /// Bytes of one element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// What keeps such numbers as they are in KV memory.
    #[must_use]
    pub const fn codec(self) -> KvCodec {
        match self {
            Self::Bf16 => KvCodec::BF16,
            Self::F16 => KvCodec::F16,
            Self::F32 => KvCodec::F32,
        }
    }

    /// What a kernel is compiled with for activations of this type: the name in `-DNAME`.
    ///
    /// # Panics
    /// For [`ElementType::F32`]: kernels have 16-bit elements.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Bf16 => "ELEMENT_BF16",
            Self::F16 => "ELEMENT_F16",
            Self::F32 => panic!("elements of kernels have 16 bits"),
        }
    }

    /// `value`, rounded to the nearest and ties to even, as this type's little-endian bits; the
    /// upper half is 0 for 16-bit types.
    #[must_use]
    pub fn bits(self, value: f32) -> u32 {
        match self {
            Self::Bf16 => bf16::from_f32(value).to_bits().into(),
            Self::F16 => f16::from_f32(value).to_bits().into(),
            Self::F32 => value.to_bits(),
        }
    }
}
