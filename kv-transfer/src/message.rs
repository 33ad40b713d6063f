//! What the two sides of a hand-off say to each other, whatever carries it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use kv_cache::{
    BlockHandle, CommitRecord, Fence, HandoffId, KvLayout, KvRegion, PageSpan, RejectReason,
};

use crate::handoff::place_digest;

/// How a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which hand-off.
    pub id: HandoffId,
    /// The receiver's life that it was made in.
    pub incarnation: u64,
    /// The layout of the sender's KV.
    pub kv_layout: KvLayout,
    /// Counts the sender's streams of this hand-off, from 1.
    pub epoch: u64,
    /// Payload of the whole hand-off: what a transport chooses its connections by. Not on the wire.
    pub bytes: u64,
}

/// Sender to receiver, after [`Open`].
///
/// - `P`: how pages come. The two ends say it in any way ([`Payload`]); a transport that knows one way
///   narrows what it is given to that, and can't be asked for more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push<P = Payload> {
    /// Pages.
    Pages(PageChunk<P>),
    /// That was all.
    Commit(CommitRecord),
}

/// Some pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageChunk<P = Payload> {
    /// Grows by one with each chunk of a stream, from 1.
    pub sequence: u64,
    /// Which pages.
    pub span: PageSpan,
    /// How they come.
    pub payload: P,
    /// `[pages]`, in the span's order: see [`crate::page_digest`] and [`crate::place_digest`].
    pub digests: Vec<u64>,
}

/// How pages come.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Their bytes, `[pages, page_bytes]`, in the span's order.
    Bytes(Bytes),
    /// They are where the receiver's memory reaches them.
    InPlace(Arc<PagesInPlace>),
}

/// Pages that a transport for bytes was given, and that come otherwise.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} are in place, and this transport carries bytes")]
pub struct NotBytes(pub PageSpan);

/// Pages in the sender's memory, for as long as somebody may read them.
pub struct PagesInPlace {
    /// Whose memory.
    pub region: Arc<dyn KvRegion>,
    /// The span's blocks there, in order.
    pub blocks: Vec<BlockHandle>,
    /// Behind the writes.
    pub fence: Fence,
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

// === impl Push ===

impl Push {
    /// The same, if its pages come as bytes: for transports that carry nothing else.
    ///
    /// # Errors
    /// [`NotBytes`] for pages in place.
    pub fn in_bytes(self) -> Result<Push<Bytes>, NotBytes> {
        let PageChunk { sequence, span, payload, digests } = match self {
            Self::Pages(chunk) => chunk,
            Self::Commit(record) => return Ok(Push::Commit(record)),
        };
        match payload {
            Payload::Bytes(payload) => {
                Ok(Push::Pages(PageChunk { sequence, span, payload, digests }))
            }
            Payload::InPlace(_) => Err(NotBytes(span)),
        }
    }
}

impl From<Push<Bytes>> for Push {
    fn from(push: Push<Bytes>) -> Self {
        match push {
            Push::Pages(PageChunk { sequence, span, payload, digests }) => {
                let payload = Payload::Bytes(payload);
                Self::Pages(PageChunk { sequence, span, payload, digests })
            }
            Push::Commit(record) => Self::Commit(record),
        }
    }
}

// === impl Payload ===

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes(ours), Self::Bytes(theirs)) => ours == theirs,
            (Self::InPlace(ours), Self::InPlace(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }
}

impl Eq for Payload {}

// === impl PagesInPlace ===

impl PagesInPlace {
    /// The digest of each page of `span`, whose blocks these are.
    pub fn digests<'a>(&'a self, span: &PageSpan) -> impl Iterator<Item = u64> + use<'a> {
        let first = span.blocks.start;
        span.iter().map(move |(layer, block)| {
            place_digest(layer, block, self.blocks[(block - first) as usize].reference())
        })
    }
}

impl fmt::Debug for PagesInPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagesInPlace")
            .field("blocks", &self.blocks)
            .field("fence", &self.fence)
            .finish_non_exhaustive()
    }
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
