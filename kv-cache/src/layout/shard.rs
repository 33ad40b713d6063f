//! Which part of a model's cache a pool holds.

use std::ops::Range;

/// The layers and heads of a model that one pool has pages for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvShard {
    /// Transformer layers.
    pub layers: Held,
    /// Key/value heads of each.
    pub heads: Held,
}

/// Some of a row, next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Held {
    /// The first that is here.
    pub first: u32,
    /// How many are.
    pub count: u32,
    /// How many there are in all.
    pub of: u32,
}

// === impl Held ===

impl Held {
    /// All of `count`.
    #[must_use]
    pub const fn all(count: u32) -> Self {
        Self { first: 0, count, of: count }
    }

    /// Those of `range`, of `of`.
    #[must_use]
    pub const fn part(range: Range<u32>, of: u32) -> Self {
        Self { first: range.start, count: range.end.saturating_sub(range.start), of }
    }

    /// Whether there are any, and no more than there are.
    pub(super) fn is_sound(self) -> bool {
        let end = self.first.checked_add(self.count);
        self.count > 0 && end.is_some_and(|end| end <= self.of)
    }
}
