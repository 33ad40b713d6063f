//! One chunk of pages, from the wire or the sender's memory into the region: checked first, written
//! second.

use std::ops::Range;

use kv_cache::{BlockHandle, BlockRef, PageRange, PeerPages, RegionError, RejectReason};
use tokio::time::Instant;

use super::Destination;
use super::entry::{Closed, Entry, WritePass};
use crate::message::{PageChunk, Payload, Rejection};
use crate::stats::add;
use crate::{page_digest, place_digest};

/// What arrived with a chunk, page by page, in the span's order.
struct Verdicts {
    /// New and as sent.
    good: Vec<usize>,
    duplicates: usize,
    corrupt: usize,
}

/// Writes the good and new pages of `chunk`. Blocks for the time of a hash and a copy; of pages in
/// place, until they are filled.
///
/// Corrupt pages are left out, counted and logged; they stay missing, so the commit asks for them.
///
/// # Errors
/// The refusal, if stream `epoch` may not write these pages or they could not be written; the
/// hand-off is then closed, unless it is another stream's by now.
pub(super) fn write(
    destination: &Destination,
    entry: &Entry,
    epoch: u64,
    chunk: &PageChunk,
) -> Result<(), Rejection> {
    check_shape(destination, entry, chunk)?;
    let Some(pass) = entry.begin_write(epoch, &chunk.span)? else {
        add(&destination.stats.duplicate_pages, chunk.span.pages());
        return Ok(());
    };
    let begun = Instant::now();
    let page_bytes = destination.region.layout().page_bytes();
    let verdicts = judge(&pass, chunk, page_bytes);
    destination.count(entry, chunk, &verdicts);
    put(destination, &pass, chunk, &verdicts.good).map_err(|error| {
        entry.close(Closed::Broken(error.clone()));
        Rejection::new(RejectReason::Internal, error.to_string())
    })?;
    let places: Vec<(u32, u32)> = chunk.span.iter().collect();
    let written = verdicts.good.iter().map(|&page| (places[page], chunk.digests[page]));
    add(&destination.stats.copy_us, begun.elapsed().as_micros() as usize);
    add(&destination.stats.bytes, verdicts.good.len() * page_bytes);
    add(&destination.stats.pages, verdicts.good.len());
    if matches!(chunk.payload, Payload::InPlace(_)) {
        add(&destination.stats.in_place_pages, verdicts.good.len());
    }
    pass.finish(written);
    Ok(())
}

/// Refuses pages that weren't promised room for, before anything is done for them.
fn check_shape(
    destination: &Destination,
    entry: &Entry,
    chunk: &PageChunk,
) -> Result<(), Rejection> {
    let pages = chunk.span.pages();
    let (has_all, what) = match &chunk.payload {
        Payload::Bytes(bytes) => {
            let want = pages.checked_mul(destination.region.layout().page_bytes());
            (Some(bytes.len()) == want, format!("{} bytes", bytes.len()))
        }
        Payload::InPlace(source) => {
            let blocks = source.blocks.len();
            (blocks == chunk.span.blocks.len(), format!("{blocks} blocks"))
        }
    };
    let detail = if !entry.span().contains(&chunk.span) {
        format!("{} is outside of {}", chunk.span, entry.span())
    } else if pages == 0 {
        "a chunk without pages".to_owned()
    } else if chunk.digests.len() != pages || !has_all {
        let digests = chunk.digests.len();
        format!("{what} and {digests} digests for the pages of {}", chunk.span)
    } else {
        return Ok(());
    };
    Err(Rejection::new(RejectReason::OutOfRange, detail))
}

fn judge(pass: &WritePass<'_>, chunk: &PageChunk, page_bytes: usize) -> Verdicts {
    let mut verdicts =
        Verdicts { good: Vec::with_capacity(chunk.digests.len()), duplicates: 0, corrupt: 0 };
    for (index, page) in chunk.span.iter().enumerate() {
        if pass.present[index] {
            verdicts.duplicates += 1;
        } else if digest(chunk, index, page, page_bytes) != chunk.digests[index] {
            verdicts.corrupt += 1;
        } else {
            verdicts.good.push(index);
        }
    }
    verdicts
}

/// What the digest of the chunk's `index`-th page comes to here.
fn digest(chunk: &PageChunk, index: usize, (layer, block): (u32, u32), page_bytes: usize) -> u64 {
    match &chunk.payload {
        Payload::Bytes(bytes) => {
            page_digest(layer, block, &bytes[index * page_bytes..][..page_bytes])
        }
        Payload::InPlace(source) => {
            let source = &source.blocks[(block - chunk.span.blocks.start) as usize];
            place_digest(layer, block, source.reference())
        }
    }
}

/// Copies the pages `good` into their blocks, all at once where all of them are.
fn put(
    destination: &Destination,
    pass: &WritePass<'_>,
    chunk: &PageChunk,
    good: &[usize],
) -> Result<(), RegionError> {
    let (layers, columns) = (chunk.span.layers.clone(), pass.blocks.len());
    check_versions(destination, &pass.blocks, layers.end)?;
    if good.len() == chunk.digests.len() {
        return copy(destination, pass, chunk, &layers, 0..columns);
    }
    good.iter().try_for_each(|&page| {
        let (layer, column) = (layers.start + (page / columns) as u32, page % columns);
        copy(destination, pass, chunk, &(layer..layer + 1), column..column + 1)
    })
}

/// Copies the chunk's pages of some `layers` for its blocks `columns`: all of both, or one of each.
fn copy(
    destination: &Destination,
    pass: &WritePass<'_>,
    chunk: &PageChunk,
    layers: &Range<u32>,
    columns: Range<usize>,
) -> Result<(), RegionError> {
    let pages = PageRange { layers: layers.clone(), blocks: &pass.blocks[columns.clone()] };
    match &chunk.payload {
        Payload::Bytes(bytes) => {
            let page_bytes = destination.region.layout().page_bytes();
            let row = (layers.start - chunk.span.layers.start) as usize;
            let start = (row * pass.blocks.len() + columns.start) * page_bytes;
            destination.region.scatter(&pages, &bytes[start..][..pages.pages() * page_bytes])
        }
        Payload::InPlace(source) => {
            let blocks = &source.blocks[columns];
            let blocks: Vec<_> = blocks.iter().map(BlockHandle::reference).collect();
            let (region, fence) = (source.region.as_ref(), source.fence);
            destination.region.copy_from(&pages, &PeerPages { region, blocks: &blocks, fence })
        }
    }
}

/// The blocks are pinned, so this can't fail; but writing to another sequence's block is the one
/// mistake that nobody would notice.
fn check_versions(
    destination: &Destination,
    blocks: &[BlockRef],
    layer_end: u32,
) -> Result<(), RegionError> {
    let stale = blocks.iter().find(|&&block| !destination.pool.is_current(block));
    stale.map_or(Ok(()), |&block| Err(RegionError::OutOfRange { block, layer_end }))
}

// === impl Destination ===

impl Destination {
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
