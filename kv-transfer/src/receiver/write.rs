//! One chunk of pages, from the wire into the region: checked first, written second.

use std::ops::Range;

use kv_cache::{BlockRef, PageRange, RegionError, RejectReason};

use super::Shared;
use super::entry::{Closed, Entry, WritePass};
use crate::message::{PageChunk, Rejection};
use crate::page_digest;
use crate::stats::add;

/// What arrived with a chunk, page by page, in the span's order.
struct Verdicts {
    /// New and as sent.
    good: Vec<usize>,
    duplicates: usize,
    corrupt: usize,
}

/// Writes the good and new pages of `chunk`. Blocks for the time of a hash and a copy.
///
/// Corrupt pages are left out, counted and logged; they stay missing, so the commit asks for them.
///
/// # Errors
/// The refusal, if stream `epoch` may not write these pages or they could not be written; the
/// hand-off is then closed, unless it is another stream's by now.
pub(super) fn write(
    shared: &Shared,
    entry: &Entry,
    epoch: u64,
    chunk: &PageChunk,
) -> Result<(), Rejection> {
    check_shape(shared, entry, chunk)?;
    let Some(pass) = entry.begin_write(epoch, &chunk.span)? else {
        add(&shared.stats.duplicate_pages, chunk.span.pages());
        return Ok(());
    };
    let page_bytes = shared.region.layout().page_bytes();
    let verdicts = judge(&pass, chunk, page_bytes);
    shared.count(entry, chunk, &verdicts);
    scatter(shared, &pass, chunk, &verdicts.good).map_err(|error| {
        entry.close(Closed::Broken(error.clone()));
        Rejection::new(RejectReason::Internal, error.to_string())
    })?;
    let places: Vec<(u32, u32)> = chunk.span.iter().collect();
    let written = verdicts.good.iter().map(|&page| (places[page], chunk.digests[page]));
    add(&shared.stats.bytes, verdicts.good.len() * page_bytes);
    add(&shared.stats.pages, verdicts.good.len());
    pass.finish(written);
    Ok(())
}

/// Refuses pages that weren't promised room for, before anything is done for them.
fn check_shape(shared: &Shared, entry: &Entry, chunk: &PageChunk) -> Result<(), Rejection> {
    let pages = chunk.span.pages();
    let detail = if !entry.span.contains(&chunk.span) {
        format!("{} is outside of {}", chunk.span, entry.span)
    } else if pages == 0 {
        "a chunk without pages".to_owned()
    } else if chunk.digests.len() != pages
        || chunk.data.len() != pages * shared.region.layout().page_bytes()
    {
        let (digests, bytes) = (chunk.digests.len(), chunk.data.len());
        format!("{bytes} bytes and {digests} digests for the pages of {}", chunk.span)
    } else {
        return Ok(());
    };
    Err(Rejection::new(RejectReason::OutOfRange, detail))
}

fn judge(pass: &WritePass<'_>, chunk: &PageChunk, page_bytes: usize) -> Verdicts {
    let mut verdicts =
        Verdicts { good: Vec::with_capacity(chunk.digests.len()), duplicates: 0, corrupt: 0 };
    let pages = chunk.span.iter().zip(chunk.data.chunks_exact(page_bytes));
    for (index, ((layer, block), bytes)) in pages.enumerate() {
        if pass.present[index] {
            verdicts.duplicates += 1;
        } else if page_digest(layer, block, bytes) != chunk.digests[index] {
            verdicts.corrupt += 1;
        } else {
            verdicts.good.push(index);
        }
    }
    verdicts
}

/// Copies the pages `good` into their blocks, all at once where all of them are.
fn scatter(
    shared: &Shared,
    pass: &WritePass<'_>,
    chunk: &PageChunk,
    good: &[usize],
) -> Result<(), RegionError> {
    let layers = chunk.span.layers.clone();
    check_generations(shared, &pass.blocks, layers.end)?;
    if good.len() == chunk.digests.len() {
        let pages = PageRange { layers, blocks: &pass.blocks };
        return shared.region.scatter(&pages, &chunk.data);
    }
    let page_bytes = shared.region.layout().page_bytes();
    for &page in good {
        let (row, column) = (page / pass.blocks.len(), page % pass.blocks.len());
        let layer = layers.start + row as u32;
        let pages =
            PageRange { layers: single(layer), blocks: std::slice::from_ref(&pass.blocks[column]) };
        shared.region.scatter(&pages, &chunk.data[page * page_bytes..(page + 1) * page_bytes])?;
    }
    Ok(())
}

fn single(layer: u32) -> Range<u32> {
    layer..layer + 1
}

/// The blocks are pinned, so this can't fail; but writing to another sequence's block is the one
/// mistake that nobody would notice.
fn check_generations(
    shared: &Shared,
    blocks: &[BlockRef],
    layer_end: u32,
) -> Result<(), RegionError> {
    let stale = blocks.iter().find(|&&block| !shared.pool.is_current(block));
    stale.map_or(Ok(()), |&block| Err(RegionError::OutOfRange { block, layer_end }))
}

// === impl Shared ===

impl Shared {
    fn count(&self, entry: &Entry, chunk: &PageChunk, verdicts: &Verdicts) {
        add(&self.stats.duplicate_pages, verdicts.duplicates);
        if verdicts.corrupt > 0 {
            add(&self.stats.corrupt_pages, verdicts.corrupt);
            tracing::warn!(
                handoff = %entry.id, span = %chunk.span, pages = verdicts.corrupt,
                "KV pages don't match their digests; asking for them again"
            );
        }
    }
}
