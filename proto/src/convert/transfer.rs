//! Hand-off messages: names, spans, commit records and refusals.

use std::ops::Range;

use kv_cache::{BadLayout, BlockHash, CommitRecord, HandoffId, KvLayout, PageSpan, RejectReason};

use super::WireError;
use crate::v1;

// === impl HandoffId ===

/// The id of a hand-off, from the wire.
///
/// # Errors
/// [`WireError`] unless it has 16 bytes.
pub fn handoff_id(bytes: &[u8]) -> Result<HandoffId, WireError> {
    bytes
        .try_into()
        .map(HandoffId)
        .map_err(|_| WireError::invalid("handoff_id", format!("has {} bytes, not 16", bytes.len())))
}

/// How a worker's KV is kept, from the wire.
///
/// # Errors
/// [`WireError`] unless it is a layout that this version knows.
pub fn kv_layout(text: &str) -> Result<KvLayout, WireError> {
    text.parse().map_err(|bad: BadLayout| WireError::invalid("kv_layout", bad.to_string()))
}

impl v1::PushRequest {
    /// What seals the messages of one hand-off, but for [`v1::Open`], which says which that is.
    #[must_use]
    pub fn seal_key(id: HandoffId) -> u64 {
        let (low, high) =
            (u128::from_le_bytes(id.0) as u64, (u128::from_le_bytes(id.0) >> 64) as u64);
        low ^ high.rotate_left(1)
    }
}

// === impl BlockHash ===

/// The name of a context, from the wire.
///
/// # Errors
/// [`WireError`] unless it has 16 bytes.
pub fn context_name(bytes: &[u8]) -> Result<BlockHash, WireError> {
    let name = bytes.try_into().map(BlockHash::from_bytes);
    name.map_err(|_| WireError::invalid("context", format!("has {} bytes, not 16", bytes.len())))
}

// === impl PageSpan ===

impl From<PageSpan> for v1::PageSpan {
    fn from(span: PageSpan) -> Self {
        Self {
            layer_begin: span.layers.start,
            layer_end: span.layers.end,
            block_begin: span.blocks.start,
            block_count: span.blocks.len() as u32,
        }
    }
}

impl TryFrom<v1::PageSpan> for PageSpan {
    type Error = WireError;

    fn try_from(wire: v1::PageSpan) -> Result<Self, WireError> {
        if wire.layer_begin > wire.layer_end {
            return Err(WireError::invalid("layer_end", "is before `layer_begin`"));
        }
        let blocks = block_range(wire.block_begin, wire.block_count)?;
        Ok(Self { layers: wire.layer_begin..wire.layer_end, blocks })
    }
}

fn block_range(begin: u32, count: u32) -> Result<Range<u32>, WireError> {
    let end = begin.checked_add(count);
    end.map(|end| begin..end).ok_or_else(|| WireError::invalid("block_count", "is too large"))
}

// === impl CommitRecord ===

impl From<CommitRecord> for v1::CommitRecord {
    fn from(record: CommitRecord) -> Self {
        Self {
            tokens: record.tokens,
            block_begin: record.blocks.start,
            block_count: record.blocks.len() as u32,
            layers: record.layers,
            digest: record.digest,
            context: record.context.to_bytes().to_vec(),
        }
    }
}

impl TryFrom<v1::CommitRecord> for CommitRecord {
    type Error = WireError;

    fn try_from(wire: v1::CommitRecord) -> Result<Self, WireError> {
        Ok(Self {
            tokens: wire.tokens,
            blocks: block_range(wire.block_begin, wire.block_count)?,
            layers: wire.layers,
            digest: wire.digest,
            context: context_name(&wire.context)?,
        })
    }
}

// === impl RejectReason ===

impl From<RejectReason> for v1::RejectReason {
    fn from(reason: RejectReason) -> Self {
        match reason {
            RejectReason::UnknownHandoff => Self::UnknownHandoff,
            RejectReason::StaleIncarnation => Self::StaleIncarnation,
            RejectReason::LayoutMismatch => Self::LayoutMismatch,
            RejectReason::OutOfRange => Self::OutOfRange,
            RejectReason::DigestMismatch => Self::DigestMismatch,
            RejectReason::Superseded => Self::Superseded,
            RejectReason::Internal => Self::Internal,
            RejectReason::ContextMismatch => Self::ContextMismatch,
        }
    }
}

impl From<v1::RejectReason> for RejectReason {
    /// A reason that this version doesn't know is taken for the receiver's own fault.
    fn from(wire: v1::RejectReason) -> Self {
        match wire {
            v1::RejectReason::UnknownHandoff => Self::UnknownHandoff,
            v1::RejectReason::StaleIncarnation => Self::StaleIncarnation,
            v1::RejectReason::LayoutMismatch => Self::LayoutMismatch,
            v1::RejectReason::OutOfRange => Self::OutOfRange,
            v1::RejectReason::DigestMismatch => Self::DigestMismatch,
            v1::RejectReason::Superseded => Self::Superseded,
            v1::RejectReason::ContextMismatch => Self::ContextMismatch,
            v1::RejectReason::Internal | v1::RejectReason::Unspecified => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn spans_and_records_survive_the_wire() {
        let span = PageSpan { layers: 2..5, blocks: 7..9 };
        assert_eq!(PageSpan::try_from(v1::PageSpan::from(span.clone())), Ok(span));
        let context = BlockHash(u128::MAX - 7);
        let record =
            CommitRecord { tokens: 70, blocks: 1..5, layers: 3, digest: u64::MAX, context };
        assert_eq!(CommitRecord::try_from(v1::CommitRecord::from(record.clone())), Ok(record));
        assert_eq!(handoff_id(&HandoffId([9; 16]).to_vec()), Ok(HandoffId([9; 16])));
    }

    #[rstest]
    #[case::backwards(2, 1, 0, 1, "layer_end")]
    #[case::overflowing(0, 1, 2, u32::MAX, "block_count")]
    fn a_bad_span_is_refused_by_field(
        #[case] layer_begin: u32,
        #[case] layer_end: u32,
        #[case] block_begin: u32,
        #[case] block_count: u32,
        #[case] field: &str,
    ) {
        let wire = v1::PageSpan { layer_begin, layer_end, block_begin, block_count };
        assert_eq!(PageSpan::try_from(wire).unwrap_err().field, field);
    }

    #[rstest]
    #[case(RejectReason::UnknownHandoff)]
    #[case(RejectReason::StaleIncarnation)]
    #[case(RejectReason::LayoutMismatch)]
    #[case(RejectReason::OutOfRange)]
    #[case(RejectReason::DigestMismatch)]
    #[case(RejectReason::Superseded)]
    #[case(RejectReason::Internal)]
    #[case(RejectReason::ContextMismatch)]
    fn a_refusal_survives_the_wire(#[case] reason: RejectReason) {
        assert_eq!(RejectReason::from(v1::RejectReason::from(reason)), reason);
    }

    #[test]
    fn an_id_or_a_name_of_another_length_is_refused() {
        assert_eq!(handoff_id(&[1; 15]).unwrap_err().field, "handoff_id");
        assert_eq!(context_name(&[]).unwrap_err().field, "context");
    }
}
