//! How the numbers of a page are written. A codec is data: a new one is a row here.

use std::fmt;

/// How the numbers of KV memory are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvCodec {
    /// The name in configuration and in fingerprints.
    pub name: &'static str,
    /// One number.
    pub numbers: Numbers,
    /// What numbers are multiplied by to be read, kept beside them.
    pub scales: Option<Scales>,
}

/// The form of a number: a sign, an exponent and a fraction; without an exponent, an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Numbers {
    /// Bits of the exponent.
    pub exponent_bits: u32,
    /// Bits of the fraction, or of an integer beside its sign.
    pub fraction_bits: u32,
}

/// Scales that lie in the page, behind all of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scales {
    /// Bits for each group: its scale, and its zero point if there is one.
    pub bits: u32,
    /// Numbers that follow each other in a vector and share a scale; all of it, for one a head and token.
    pub group: u32,
}

// === impl KvCodec ===

impl KvCodec {
    /// 32-bit float: the oracle's choice for such weights.
    pub const F32: Self = Self::plain_of("f32", Numbers { exponent_bits: 8, fraction_bits: 23 });
    /// bfloat16: the default.
    pub const BF16: Self = Self::plain_of("bf16", Numbers { exponent_bits: 8, fraction_bits: 7 });
    /// IEEE half.
    pub const F16: Self = Self::plain_of("f16", Numbers { exponent_bits: 5, fraction_bits: 10 });

    /// Those that have a name.
    pub const ALL: [Self; 3] = [Self::F32, Self::BF16, Self::F16];

    const fn plain_of(name: &'static str, numbers: Numbers) -> Self {
        Self { name, numbers, scales: None }
    }

    /// The codec called `name`, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name == name)
    }

    /// The numbers, if they mean what they say: a page is then an array of them, for whoever computes in
    /// such numbers to read as it is.
    #[must_use]
    pub fn plain(&self) -> Option<Numbers> {
        self.scales.is_none().then_some(self.numbers)
    }

    /// Bytes of a vector's numbers.
    pub(super) const fn vector_bytes(&self, head_dim: usize) -> usize {
        head_dim * self.numbers.bits() as usize / 8
    }

    /// Bytes of a vector's scales.
    pub(super) const fn scale_bytes(&self, head_dim: usize) -> usize {
        match self.scales {
            Some(Scales { bits, group }) => head_dim / group as usize * bits as usize / 8,
            None => 0,
        }
    }

    /// Whether vectors of `head_dim` numbers, and their scales, end with a byte.
    pub(super) fn divides(&self, head_dim: u32) -> bool {
        let whole = |bits: Option<u32>| bits.is_some_and(|bits| bits.is_multiple_of(8));
        let scales = self.scales.is_none_or(|Scales { bits, group }| {
            group > 0
                && head_dim.is_multiple_of(group)
                && whole((head_dim / group).checked_mul(bits))
        });
        scales && whole(head_dim.checked_mul(self.numbers.bits()))
    }
}

impl fmt::Display for KvCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// === impl Numbers ===

impl Numbers {
    /// Bits of one.
    #[must_use]
    pub const fn bits(self) -> u32 {
        1 + self.exponent_bits + self.fraction_bits
    }
}
