//! The words of a hand-off: which pages of a sequence, and what closes the set.

use std::fmt;
use std::ops::Range;

use crate::BlockHash;

/// One attempt to hand one sequence over: 16 random bytes, never used twice.
///
/// Whoever knows it may write, so it is made by the receiver and told to one sender.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandoffId(pub [u8; 16]);

/// The pages of a range of layers for a range of a sequence's *logical* blocks.
///
/// Wherever its pages are listed they are ordered layer first, then block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageSpan {
    /// Layers `start..end`.
    pub layers: Range<u32>,
    /// Logical blocks `start..end`.
    pub blocks: Range<u32>,
}

/// What a sender says it has sent, all in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// Tokens of the sequence whose KV is there, leading blocks that weren't sent included.
    pub tokens: u32,
    /// Logical blocks sent.
    pub blocks: Range<u32>,
    /// Layers sent, from the first.
    pub layers: u32,
    /// Over every page sent; see the transfer crate's `Digest`.
    pub digest: u64,
    /// The name of the tokens whose KV was computed: [`crate::ChainHasher::name`].
    pub context: BlockHash,
}

/// Why a receiver will not take a hand-off's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// No such hand-off is open: it ended, or never was.
    UnknownHandoff,
    /// Meant for another life of the receiver.
    StaleIncarnation,
    /// The two sides' pages have different shapes.
    LayoutMismatch,
    /// Pages outside of what was reserved, or a message that makes no sense.
    OutOfRange,
    /// The digest differs although every page matched its own.
    DigestMismatch,
    /// A later stream took the hand-off over.
    Superseded,
    /// The receiver's memory failed.
    Internal,
    /// The pages are of other tokens than were asked for.
    ContextMismatch,
}

// === impl HandoffId ===

impl HandoffId {
    /// The bytes, for the wire.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Display for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for HandoffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HandoffId({self})")
    }
}

// === impl PageSpan ===

impl PageSpan {
    /// Pages in the span.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.layers.len() * self.blocks.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() || self.blocks.is_empty()
    }

    /// Whether every page of `other` is one of this span's.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let within = |outer: &Range<u32>, inner: &Range<u32>| {
            outer.start <= inner.start && inner.end <= outer.end
        };
        other.is_empty()
            || (within(&self.layers, &other.layers) && within(&self.blocks, &other.blocks))
    }

    /// Whether any page is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: &Range<u32>, b: &Range<u32>| a.start.max(b.start) < a.end.min(b.end);
        meet(&self.layers, &other.layers) && meet(&self.blocks, &other.blocks)
    }

    /// Each page as (layer, logical block), in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let blocks = self.blocks.clone();
        self.layers.clone().flat_map(move |layer| blocks.clone().map(move |block| (layer, block)))
    }

    /// Cuts the span into spans of at most `pages_max` pages, as equal as can be, in order.
    ///
    /// # Panics
    /// If `pages_max` is 0.
    pub fn pieces(&self, pages_max: usize) -> impl Iterator<Item = Self> + use<> {
        let (layers, blocks) = (self.layers.clone(), self.blocks.clone());
        let width = equal_part(blocks.len(), pages_max);
        let height = if width < blocks.len() { 1 } else { pages_max / width.max(1) };
        let height = equal_part(layers.len(), height);
        parts(layers, height).flat_map(move |layers| {
            parts(blocks.clone(), width).map(move |blocks| Self { layers: layers.clone(), blocks })
        })
    }
}

impl fmt::Display for PageSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layers, blocks } = self;
        write!(f, "layers {}..{} x blocks ", layers.start, layers.end)?;
        write!(f, "{}..{}", blocks.start, blocks.end)
    }
}

/// The length of each of the fewest equal parts of at most `max` that `whole` can be cut into.
fn equal_part(whole: usize, max: usize) -> usize {
    whole.div_ceil(whole.div_ceil(max).max(1))
}

fn parts(range: Range<u32>, length: usize) -> impl Iterator<Item = Range<u32>> {
    let end = range.end;
    range.step_by(length.max(1)).map(move |start| start..end.min(start + length as u32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_the_span_in_parts_that_fit(
            layer in 0..4u32, layers in 0..9u32, block in 0..5u32, blocks in 0..70u32,
            pages_max in 1..40usize,
        ) {
            let span = PageSpan { layers: layer..layer + layers, blocks: block..block + blocks };
            let pieces: Vec<_> = span.pieces(pages_max).collect();
            prop_assert!(pieces.iter().all(|piece| (1..=pages_max).contains(&piece.pages())));
            let mut pages: Vec<_> = pieces.iter().flat_map(PageSpan::iter).collect();
            prop_assert!(pieces.is_sorted_by_key(|piece| piece.layers.start));
            pages.sort_unstable();
            prop_assert_eq!(pages, span.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_span_contains_what_lies_within() {
        let span = |layers, blocks| PageSpan { layers, blocks };
        let whole = span(1..3, 4..8);
        assert!(whole.contains(&span(1..3, 4..8)) && whole.contains(&span(2..3, 5..6)));
        assert!(!whole.contains(&span(0..3, 4..8)) && !whole.contains(&span(1..3, 4..9)));
        assert!(whole.contains(&span(7..7, 0..9)), "an empty span has nothing outside");
    }

    #[test]
    fn an_id_reads_as_hex() {
        let id = HandoffId(std::array::from_fn(|byte| byte as u8 * 17));
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
    }
}
