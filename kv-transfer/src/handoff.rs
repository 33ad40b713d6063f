//! The arithmetic of a hand-off: what a page's digest is, and which pages are there. Pure.

use std::ops::Range;

use kv_cache::{BlockRef, PageSpan};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The digest of one page, bound to its place: xxh3-64 of its bytes, seeded with
/// `layer << 32 | block`.
///
/// Computed once on each side. It says whether the page arrived as it was sent, and the sum over
/// all pages ([`Digest`]) says whether the set did.
///
/// - `block`: the *logical* block, the only name that both sides share.
#[must_use]
pub fn page_digest(layer: u32, block: u32, page: &[u8]) -> u64 {
    xxh3_64_with_seed(page, u64::from(layer) << 32 | u64::from(block))
}

/// The digest of a page that is copied from memory to memory, bound to where it is and where it
/// goes: xxh3-64 of the sender's block and its version, seeded as [`page_digest`].
///
/// There is no wire on which bits could change, so nothing reads the page to hash it; what can go
/// wrong is that another page is copied, or that one is left out. That is what this digest is of.
#[must_use]
pub fn place_digest(layer: u32, block: u32, source: BlockRef) -> u64 {
    let source = u64::from(source.block.0) << 32 | u64::from(source.version.0);
    page_digest(layer, block, &source.to_le_bytes())
}

/// The digest of a set of pages: the wrapping sum of theirs, so their order doesn't matter.
///
/// Guards against faults, not against forgery: whoever can push pages can also push a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub u64);

/// Which pages of a span are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    layers: Range<u32>,
    blocks: Range<u32>,
    /// `[layers, blocks]`, one bit each.
    bits: Vec<u64>,
    missing: usize,
}

// === impl Digest ===

impl Digest {
    /// Adds a page's digest.
    pub fn add(&mut self, page_digest: u64) {
        self.0 = self.0.wrapping_add(page_digest);
    }
}

// === impl Coverage ===

impl Coverage {
    /// None of the pages of `span`.
    #[must_use]
    pub fn new(span: &PageSpan) -> Self {
        let pages = span.pages();
        Self {
            layers: span.layers.clone(),
            blocks: span.blocks.clone(),
            bits: vec![0; pages.div_ceil(64)],
            missing: pages,
        }
    }

    /// Whether the page is there. A page outside of the span never is.
    #[must_use]
    pub fn contains(&self, layer: u32, block: u32) -> bool {
        self.bit(layer, block).is_some_and(|bit| self.bits[bit / 64] >> (bit % 64) & 1 == 1)
    }

    /// Adds a page; says whether that is new.
    ///
    /// # Panics
    /// If the page is outside of the span.
    pub fn insert(&mut self, layer: u32, block: u32) -> bool {
        let bit = self.bit(layer, block).expect("a page of the span");
        let (word, mask) = (&mut self.bits[bit / 64], 1 << (bit % 64));
        let new = *word & mask == 0;
        *word |= mask;
        self.missing -= usize::from(new);
        new
    }

    /// Pages that are not there.
    #[must_use]
    pub fn missing_pages(&self) -> usize {
        self.missing
    }

    /// Whether every page is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// The pages that are not there, in few spans: the first `spans_max` of them.
    #[must_use]
    pub fn missing(&self, spans_max: usize) -> Vec<PageSpan> {
        let mut spans: Vec<PageSpan> = Vec::new();
        // The spans that reach down to the layer before: each goes on where this layer misses the
        // same blocks.
        let mut open: Vec<usize> = Vec::new();
        for layer in self.layers.clone() {
            let mut still_open = Vec::new();
            for blocks in self.missing_runs(layer) {
                let index = match open.iter().find(|&&index| spans[index].blocks == blocks) {
                    Some(&index) => index,
                    None if spans.len() == spans_max => return spans,
                    None => {
                        spans.push(PageSpan { layers: layer..layer, blocks });
                        spans.len() - 1
                    }
                };
                spans[index].layers.end = layer + 1;
                still_open.push(index);
            }
            open = still_open;
        }
        spans
    }

    /// Runs of missing blocks of one layer, in order.
    fn missing_runs(&self, layer: u32) -> impl Iterator<Item = Range<u32>> + '_ {
        let mut next = self.blocks.start;
        std::iter::from_fn(move || {
            let end = self.blocks.end;
            let start = (next..end).find(|&block| !self.contains(layer, block))?;
            let stop = (start..end).find(|&block| self.contains(layer, block)).unwrap_or(end);
            next = stop;
            Some(start..stop)
        })
    }

    fn bit(&self, layer: u32, block: u32) -> Option<usize> {
        if !self.layers.contains(&layer) || !self.blocks.contains(&block) {
            return None;
        }
        let row = (layer - self.layers.start) as usize;
        Some(row * self.blocks.len() + (block - self.blocks.start) as usize)
    }
}

#[cfg(test)]
mod tests;
