//! What the two sides of a hand-off say to each other, whatever carries it.

use std::fmt;

use bytes::Bytes;
use kv_cache::{CommitRecord, HandoffId, PageSpan, RejectReason};

/// How a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which hand-off.
    pub id: HandoffId,
    /// The receiver's life that it was made in.
    pub incarnation: u64,
    /// The sender's KV layout, as in its fingerprint.
    pub kv_layout: String,
    /// Counts the sender's streams of this hand-off, from 1.
    pub epoch: u64,
}

/// Sender to receiver, after [`Open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// Pages.
    Pages(PageChunk),
    /// That was all.
    Commit(CommitRecord),
}

/// Some pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageChunk {
    /// Grows by one with each chunk of a stream, from 1.
    pub sequence: u64,
    /// Which pages.
    pub span: PageSpan,
    /// Their bytes, `[pages, page_bytes]`, in the span's order.
    pub data: Bytes,
    /// `[pages]`: see [`crate::page_digest`].
    pub digests: Vec<u64>,
}

/// Receiver to sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Go ahead.
    Opened {
        /// Payload bytes that may be under way without an acknowledgement.
        window_bytes: u64,
    },
    /// Chunks of this stream up to this one have been dealt with.
    Ack {
        /// [`PageChunk::sequence`].
        sequence: u64,
    },
    /// The answer to a commit that came too early: send these (and maybe more) again.
    Missing(Vec<PageSpan>),
    /// The answer to a commit: the whole set is there and right.
    Verified {
        /// Pages of the set.
        pages: u64,
    },
    /// The stream ends here.
    Rejected(Rejection),
}

/// A refusal, and what exactly was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// What to make of it.
    pub reason: RejectReason,
    /// For people.
    pub detail: String,
}

// === impl Rejection ===

impl Rejection {
    /// A refusal with its detail.
    pub(crate) fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The refusal of whatever comes for a hand-off that isn't open.
    pub(crate) fn unknown(id: HandoffId) -> Self {
        Self::new(RejectReason::UnknownHandoff, format!("hand-off {id} is not open"))
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.detail, self.reason)
    }
}
