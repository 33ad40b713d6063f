//! Out of the region: pages into a buffer, each with its digest; or the word where they are.

use std::sync::Arc;

use kv_cache::{BlockHandle, Fence, KvRegion, PageRange, PageSpan};
use tokio::time::Instant;

use crate::blocking;
use crate::buffers::Buffers;
use crate::message::{PagesInPlace, Payload};
use crate::{TransferError, page_digest};

/// Pages to be read.
pub(super) struct Gather {
    pub(super) span: PageSpan,
    /// The blocks of `span.blocks`; held until the pages have been read.
    pub(super) blocks: Vec<BlockHandle>,
    pub(super) fence: Fence,
    /// Sent before: doesn't count for the commit record again.
    pub(super) resent: bool,
}

/// Pages read, or to be read by the receiver.
pub(super) struct Gathered {
    pub(super) span: PageSpan,
    pub(super) payload: Payload,
    /// `[pages]`
    pub(super) digests: Vec<u64>,
    pub(super) resent: bool,
    /// Time of the copy and the hash.
    pub(super) took_us: usize,
}

/// Waits until `fence` has passed, and returns it.
pub(super) async fn settled(
    region: Arc<dyn KvRegion>,
    fence: Fence,
) -> Result<Fence, TransferError> {
    let waited = region.clone();
    blocking(region.as_ref(), move || Ok(waited.settle(fence).map(|()| fence)?)).await
}

async fn blocking<T: Send + 'static>(
    region: &dyn KvRegion,
    work: impl FnOnce() -> Result<T, TransferError> + Send + 'static,
) -> Result<T, TransferError> {
    let done = blocking::start(region, work).await;
    done.unwrap_or_else(|lost| Err(TransferError::Internal(lost)))
}

// === impl Gather ===

impl Gather {
    /// Reads the pages on a blocking thread, once there is a buffer.
    ///
    /// - `turn`: of the hand-off, among those that wait for buffers.
    pub(super) async fn run(
        self,
        region: Arc<dyn KvRegion>,
        buffers: Buffers,
        turn: u64,
    ) -> Result<Gathered, TransferError> {
        let bytes = self.span.pages() * region.layout().page_bytes();
        let mut buffer = buffers.take(turn, bytes).await;
        let source = region.clone();
        let read = move || {
            let begun = Instant::now();
            let out = buffer.first_mut(bytes);
            let digests = self.read(source.as_ref(), out)?;
            let payload = Payload::Bytes(buffer.freeze(bytes));
            let took_us = begun.elapsed().as_micros() as usize;
            Ok(Gathered { span: self.span, payload, digests, resent: self.resent, took_us })
        };
        blocking(region.as_ref(), read).await
    }

    /// Leaves the pages where they are.
    pub(super) fn in_place(self, region: Arc<dyn KvRegion>) -> Gathered {
        let Self { span, blocks, fence, resent } = self;
        let source = PagesInPlace { region, blocks, fence };
        let digests = source.digests(&span).collect();
        let payload = Payload::InPlace(Arc::new(source));
        Gathered { span, payload, digests, resent, took_us: 0 }
    }

    fn read(&self, region: &dyn KvRegion, out: &mut [u8]) -> Result<Vec<u64>, TransferError> {
        let blocks: Vec<_> = self.blocks.iter().map(BlockHandle::reference).collect();
        let pages = PageRange { layers: self.span.layers.clone(), blocks: &blocks };
        region.gather(&pages, self.fence, out)?;
        let pages = self.span.iter().zip(out.chunks_exact(region.layout().page_bytes()));
        Ok(pages.map(|((layer, block), page)| page_digest(layer, block, page)).collect())
    }
}
