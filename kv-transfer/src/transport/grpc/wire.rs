//! `baton.v1` transfer messages, to and from what the two ends say.

use bytes::Bytes;
use kv_cache::{HandoffId, PageSpan};
use proto::convert::required;
use proto::convert::transfer::{handoff_id, kv_layout};
use proto::v1;
use proto::v1::push_request::Message as Request;
use proto::v1::push_response::Message as Response;
use proto::{Sealed as _, WireError};

use crate::message::{Open, PageChunk, Push, Rejection, Reply};

/// What an `Open` is sealed with: nothing is known before it.
const OPEN_KEY: u64 = 0;

/// Lanes of a stream, at most.
pub(super) const LANES_MAX: usize = 64;

/// Seals and opens what is said for one hand-off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    key: u64,
}

/// How one lane of a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneOpen {
    pub(super) open: Open,
    pub(super) lane: usize,
    pub(super) lanes: usize,
}

// === impl Envelope ===

impl Envelope {
    pub(super) fn new(id: HandoffId) -> Self {
        Self { key: v1::PushRequest::seal_key(id) }
    }

    pub(super) fn seal_push(self, push: Push<Bytes>) -> v1::PushRequest {
        v1::PushRequest::from(push).sealed(self.key)
    }

    pub(super) fn open_push(self, mut wire: v1::PushRequest) -> Result<Push<Bytes>, WireError> {
        wire.check_seal(self.key)?;
        wire.try_into()
    }

    pub(super) fn seal_reply(self, reply: Reply) -> v1::PushResponse {
        v1::PushResponse::from(reply).sealed(self.key)
    }

    pub(super) fn open_reply(self, mut wire: v1::PushResponse) -> Result<Reply, WireError> {
        wire.check_seal(self.key)?;
        wire.try_into()
    }
}

// === impl LaneOpen ===

impl From<LaneOpen> for v1::PushRequest {
    fn from(LaneOpen { open, lane, lanes }: LaneOpen) -> Self {
        let open = v1::Open {
            handoff_id: open.id.to_vec(),
            incarnation: open.incarnation,
            kv_layout: open.kv_layout.to_string(),
            epoch: open.epoch,
            lanes: lanes as u32,
            lane: lane as u32,
        };
        Self { message: Some(Request::Open(open)), seal: 0 }.sealed(OPEN_KEY)
    }
}

impl TryFrom<v1::PushRequest> for LaneOpen {
    type Error = WireError;

    fn try_from(mut wire: v1::PushRequest) -> Result<Self, WireError> {
        wire.check_seal(OPEN_KEY)?;
        let Request::Open(open) = required("message", wire.message)? else {
            return Err(WireError::invalid("message", "must be `open` first"));
        };
        let (lane, lanes) = (open.lane as usize, open.lanes.max(1) as usize);
        if lane >= lanes || lanes > LANES_MAX {
            return Err(WireError::invalid("lane", format!("{lane} of {lanes}")));
        }
        let open = Open {
            id: handoff_id(&open.handoff_id)?,
            incarnation: open.incarnation,
            kv_layout: kv_layout(&open.kv_layout)?,
            epoch: open.epoch,
            bytes: 0,
        };
        Ok(Self { open, lane, lanes })
    }
}

// === impl Push ===

impl From<Push<Bytes>> for v1::PushRequest {
    fn from(push: Push<Bytes>) -> Self {
        let message = match push {
            Push::Pages(chunk) => Request::Pages(chunk.into()),
            Push::Commit(record) => Request::Commit(record.into()),
        };
        Self { message: Some(message), seal: 0 }
    }
}

impl TryFrom<v1::PushRequest> for Push<Bytes> {
    type Error = WireError;

    fn try_from(wire: v1::PushRequest) -> Result<Self, WireError> {
        Ok(match required("message", wire.message)? {
            Request::Pages(chunk) => Self::Pages(chunk.try_into()?),
            Request::Commit(record) => Self::Commit(record.try_into()?),
            Request::Open(_) => return Err(WireError::invalid("message", "is a second `open`")),
        })
    }
}

// === impl PageChunk ===

impl From<PageChunk<Bytes>> for v1::Pages {
    fn from(chunk: PageChunk<Bytes>) -> Self {
        let span = v1::PageSpan::from(chunk.span);
        Self {
            sequence: chunk.sequence,
            layer_begin: span.layer_begin,
            layer_end: span.layer_end,
            block_begin: span.block_begin,
            block_count: span.block_count,
            data: chunk.payload,
            page_digests: chunk.digests,
        }
    }
}

impl TryFrom<v1::Pages> for PageChunk<Bytes> {
    type Error = WireError;

    fn try_from(wire: v1::Pages) -> Result<Self, WireError> {
        let span = v1::PageSpan {
            layer_begin: wire.layer_begin,
            layer_end: wire.layer_end,
            block_begin: wire.block_begin,
            block_count: wire.block_count,
        };
        Ok(Self {
            sequence: wire.sequence,
            span: span.try_into()?,
            payload: wire.data,
            digests: wire.page_digests,
        })
    }
}

// === impl Reply ===

impl From<Reply> for v1::PushResponse {
    fn from(reply: Reply) -> Self {
        let message = match reply {
            Reply::Opened { window_bytes } => Response::Opened(v1::Opened { window_bytes }),
            Reply::Ack { sequence } => Response::Ack(v1::Ack { sequence }),
            Reply::Missing(spans) => {
                let spans = spans.into_iter().map(Into::into).collect();
                Response::Missing(v1::Missing { spans })
            }
            Reply::Verified { pages } => Response::Verified(v1::Verified { pages }),
            Reply::Rejected(Rejection { reason, detail }) => {
                let reason = v1::RejectReason::from(reason).into();
                Response::Rejected(v1::Rejected { reason, detail })
            }
        };
        Self { message: Some(message), seal: 0 }
    }
}

impl TryFrom<v1::PushResponse> for Reply {
    type Error = WireError;

    fn try_from(wire: v1::PushResponse) -> Result<Self, WireError> {
        Ok(match required("message", wire.message)? {
            Response::Opened(opened) => Self::Opened { window_bytes: opened.window_bytes },
            Response::Ack(ack) => Self::Ack { sequence: ack.sequence },
            Response::Missing(missing) => {
                let spans = missing.spans.into_iter().map(PageSpan::try_from);
                Self::Missing(spans.collect::<Result<_, _>>()?)
            }
            Response::Verified(verified) => Self::Verified { pages: verified.pages },
            Response::Rejected(rejected) => Self::Rejected(Rejection {
                reason: rejected.reason().into(),
                detail: rejected.detail,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use kv_cache::{BlockHash, CommitRecord, KvCodec, KvLayout, PageShape, RejectReason};
    use rstest::rstest;

    use super::*;

    fn span() -> PageSpan {
        PageSpan { layers: 1..3, blocks: 4..9 }
    }

    fn open(lane: usize, lanes: usize) -> LaneOpen {
        let page = PageShape::keys_and_values(8, 4);
        let (id, kv_layout) = (HandoffId([3; 16]), KvLayout::whole(3, 1, page, KvCodec::F16));
        LaneOpen { open: Open { id, incarnation: 5, kv_layout, epoch: 2, bytes: 0 }, lane, lanes }
    }

    #[test]
    fn an_open_survives_the_wire() {
        assert_eq!(LaneOpen::try_from(v1::PushRequest::from(open(3, 4))), Ok(open(3, 4)));
        for (lane, lanes) in [(4, 4), (1, 0), (0, LANES_MAX + 1)] {
            let odd = LaneOpen::try_from(v1::PushRequest::from(open(lane, lanes)));
            assert_eq!(odd.unwrap_err().field, "lane", "{lane} of {lanes}");
        }
        assert_eq!(LaneOpen::try_from(v1::PushRequest::from(open(0, 0))), Ok(open(0, 1)));
        let mut other = v1::PushRequest::from(open(0, 1));
        let Some(Request::Open(said)) = &mut other.message else { panic!("an open") };
        said.kv_layout = "layers=5".into();
        let odd = LaneOpen::try_from(other.sealed(OPEN_KEY));
        assert_eq!(odd.unwrap_err().field, "kv_layout");
        let second = Push::<Bytes>::try_from(v1::PushRequest::from(open(0, 1)));
        assert_eq!(second.unwrap_err().field, "message", "only the first message opens");
    }

    #[rstest]
    #[case(Push::Pages(PageChunk {
        sequence: 7,
        span: span(),
        payload: Bytes::from_static(b"pages"),
        digests: vec![1, u64::MAX],
    }))]
    #[case(Push::Commit(CommitRecord {
        tokens: 70,
        blocks: 4..9,
        layers: 3,
        digest: 9,
        context: BlockHash(3),
    }))]
    fn a_push_survives_the_wire(#[case] push: Push<Bytes>) {
        assert_eq!(Push::try_from(v1::PushRequest::from(push.clone())), Ok(push.clone()));
        let first = LaneOpen::try_from(v1::PushRequest::from(push).sealed(OPEN_KEY));
        assert_eq!(first.unwrap_err().field, "message", "the first message must open");
    }

    #[rstest]
    #[case(Reply::Opened { window_bytes: 1 << 40 })]
    #[case(Reply::Ack { sequence: 3 })]
    #[case(Reply::Missing(vec![span(), span()]))]
    #[case(Reply::Verified { pages: 12 })]
    #[case(Reply::Rejected(Rejection::new(RejectReason::Superseded, "late")))]
    fn a_reply_survives_the_wire(#[case] reply: Reply) {
        assert_eq!(Reply::try_from(v1::PushResponse::from(reply.clone())), Ok(reply));
    }

    #[test]
    fn page_data_is_not_copied() {
        let data = Bytes::from(vec![1u8; 100]);
        let payload = data.clone();
        let chunk = PageChunk { sequence: 1, span: span(), payload, digests: vec![] };
        let wire = v1::Pages::from(chunk);
        assert_eq!(wire.data.as_ptr(), data.as_ptr());
        assert_eq!(PageChunk::try_from(wire).unwrap().payload.as_ptr(), data.as_ptr());
    }
}
