//! Where things lie that the device reaches: numbers that come from memory alone.

use std::marker::PhantomData;
use std::ops::Range;

/// Where something begins, in device memory or in pinned memory. What a kernel is given for a pointer.
///
/// No number becomes one: memory gives them out, within its bounds. Whoever launches with it keeps the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(crate) struct Address(u64);

/// Some bytes of device memory or of pinned memory, while that lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span<'a> {
    begin: u64,
    bytes: usize,
    _memory: PhantomData<&'a ()>,
}

// === impl Address ===

impl Address {
    /// A kernel's null pointer.
    pub(crate) const NONE: Self = Self(0);

    /// As the driver writes it. There is no way back.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// The largest power of two, up to 16, that divides it: bytes of an access that is aligned there.
    pub(crate) fn alignment(self) -> u32 {
        1 << self.0.trailing_zeros().min(4)
    }

    #[cfg(test)]
    pub(crate) fn pretended(number: u64) -> Self {
        Self(number)
    }
}

// === impl Span ===

impl<'a> Span<'a> {
    /// All of a memory that is there for as long as it is borrowed.
    pub(in crate::backend::cuda) fn of_memory(begin: u64, bytes: usize) -> Self {
        Self { begin, bytes, _memory: PhantomData }
    }

    /// Where it begins.
    pub(crate) fn address(self) -> Address {
        Address(self.begin)
    }

    /// How long it is.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    /// Some of it.
    ///
    /// # Panics
    /// If that isn't all in it.
    pub(crate) fn part(self, part: Range<usize>) -> Self {
        assert!(
            part.start <= part.end && part.end <= self.bytes,
            "bytes {part:?} of {}: outside of the memory",
            self.bytes
        );
        Self { begin: self.begin + part.start as u64, bytes: part.end - part.start, ..self }
    }

    /// Where the byte `offset` lies, or the end.
    ///
    /// # Panics
    /// If that is past the end.
    pub(crate) fn at(self, offset: usize) -> Address {
        self.part(offset..self.bytes).address()
    }

    #[cfg(test)]
    pub(crate) fn pretended(bytes: usize) -> Self {
        Self::of_memory(0, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_within() {
        let all = Span::of_memory(0x1000, 100);
        let part = all.part(10..60).part(6..50);
        assert_eq!((part.address().number(), part.bytes()), (0x1010, 44));
        assert_eq!((part.address().alignment(), all.at(100).number()), (16, 0x1064));
    }

    #[test]
    #[should_panic(expected = "bytes 44..45 of 44")]
    fn nothing_is_past_the_end() {
        let _ =
            Span::of_memory(0x1000, 44).at(44).number() + Span::of_memory(0, 44).part(44..45).begin;
    }
}
