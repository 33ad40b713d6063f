//! Pages, as they are named in one copy.

use std::ops::Range;

use super::RegionError;
use crate::{BlockRef, KvLayout};

/// The pages of consecutive layers for a list of blocks: the unit of one copy.
///
/// Bytes are ordered layer first, then block in the order of `blocks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRange<'a> {
    /// Layers `start..end`, of those that the region has.
    pub layers: Range<u32>,
    /// Physical blocks.
    pub blocks: &'a [BlockRef],
}

// === impl PageRange ===

impl PageRange<'_> {
    /// Pages in the range.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.layers.len() * self.blocks.len()
    }

    /// Checks that a region of `blocks` blocks has these pages, and that `bytes` is what they take.
    ///
    /// # Errors
    /// [`RegionError::OutOfRange`] for a block or layer that it doesn't have, else
    /// [`RegionError::Length`].
    pub fn check(&self, layout: &KvLayout, blocks: u32, bytes: usize) -> Result<(), RegionError> {
        let layer_end = self.layers.end;
        let foreign =
            self.blocks.iter().find(|block| block.block.0 >= blocks || layer_end > layout.layers());
        if let Some(&block) = foreign {
            return Err(RegionError::OutOfRange { block, layer_end });
        }
        let want = self.pages() * layout.page_bytes();
        if bytes == want { Ok(()) } else { Err(RegionError::Length { got: bytes, want }) }
    }

    /// Checks that `from` is as many blocks as are named, each as long as one is in all layers.
    ///
    /// # Errors
    /// [`RegionError::Length`].
    pub fn check_blocks(&self, layout: &KvLayout, from: &[&[u8]]) -> Result<(), RegionError> {
        let want = layout.block_bytes();
        let wrong = from.iter().map(|block| block.len()).find(|got| *got != want);
        let (got, want) = match wrong {
            Some(got) => (got, want),
            None => (from.len() * want, self.blocks.len() * want),
        };
        if got == want { Ok(()) } else { Err(RegionError::Length { got, want }) }
    }
}
