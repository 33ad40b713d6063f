//! What transfers have done since the start, for whoever exports it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::TransferError;

/// Counters of one side of a worker's transfers: its receiver's or its sender's.
#[derive(Debug, Default)]
pub struct TransferStats {
    pub(crate) bytes: AtomicU64,
    pub(crate) pages: AtomicU64,
    pub(crate) in_place_pages: AtomicU64,
    pub(crate) copy_us: AtomicU64,
    pub(crate) resent_pages: AtomicU64,
    pub(crate) duplicate_pages: AtomicU64,
    pub(crate) corrupt_pages: AtomicU64,
    pub(crate) corrupt_messages: AtomicU64,
    pub(crate) streams_cut: AtomicU64,
    pub(crate) handoffs_verified: AtomicU64,
    pub(crate) handoffs_abandoned: AtomicU64,
    pub(crate) handoffs_expired: AtomicU64,
    pub(crate) handoffs_failed: AtomicU64,
}

/// [`TransferStats`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransferCounts {
    /// Payload bytes sent, or received and written.
    pub bytes: u64,
    /// Pages sent, or received and written.
    pub pages: u64,
    /// Those of them that went from memory to memory.
    pub in_place_pages: u64,
    /// Time that messages took between memory and buffer, hashed on the way, added up; several do at once.
    pub copy_us: u64,
    /// Pages sent again, because the receiver missed them or a stream was cut.
    pub resent_pages: u64,
    /// Pages that arrived although they were there already.
    pub duplicate_pages: u64,
    /// Pages that arrived and didn't match their digest. None of them was written.
    pub corrupt_pages: u64,
    /// Messages that arrived and didn't match their seal. Each ended its stream.
    pub corrupt_messages: u64,
    /// Streams that ended or stalled before their hand-off did.
    pub streams_cut: u64,
    /// Hand-offs that were verified.
    pub handoffs_verified: u64,
    /// Hand-offs that this side gave up.
    pub handoffs_abandoned: u64,
    /// Hand-offs whose deadline passed.
    pub handoffs_expired: u64,
    /// Hand-offs that were refused or broke.
    pub handoffs_failed: u64,
}

// === impl TransferStats ===

impl TransferStats {
    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> TransferCounts {
        TransferCounts {
            bytes: self.bytes.load(Relaxed),
            pages: self.pages.load(Relaxed),
            in_place_pages: self.in_place_pages.load(Relaxed),
            copy_us: self.copy_us.load(Relaxed),
            resent_pages: self.resent_pages.load(Relaxed),
            duplicate_pages: self.duplicate_pages.load(Relaxed),
            corrupt_pages: self.corrupt_pages.load(Relaxed),
            corrupt_messages: self.corrupt_messages.load(Relaxed),
            streams_cut: self.streams_cut.load(Relaxed),
            handoffs_verified: self.handoffs_verified.load(Relaxed),
            handoffs_abandoned: self.handoffs_abandoned.load(Relaxed),
            handoffs_expired: self.handoffs_expired.load(Relaxed),
            handoffs_failed: self.handoffs_failed.load(Relaxed),
        }
    }

    /// Counts how a hand-off ended.
    pub(crate) fn count_outcome<T>(&self, outcome: &Result<T, TransferError>) {
        let counter = match outcome {
            Ok(_) => &self.handoffs_verified,
            Err(TransferError::Deadline) => &self.handoffs_expired,
            Err(TransferError::Abandoned) => &self.handoffs_abandoned,
            Err(_) => &self.handoffs_failed,
        };
        add(counter, 1);
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Relaxed);
}
