//! gRPC messages to and from the frames of a body, page data not copied.
//!
//! A generated client writes each message into a buffer of its own and a generated server each body into
//! another: two allocations of a message's size and two copies of every page, half of what a core did
//! for it beside the socket. Here a message is a head and the page data as they are, two frames, and is read
//! from the frames that came. On the wire nothing differs.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut as _, Bytes, BytesMut};
use futures::Stream;
use http_body::Body as _;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, fixed64, key_len};
use proto::v1;
use proto::v1::push_request::Message as Request;
use tonic::body::Body;
use tonic::{Code, Status};

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Numbers of `PushRequest.pages`, `Pages.data` and `PushRequest.seal`.
const PAGES: u32 = 2;
const DATA: u32 = 6;
const SEAL: u32 = 4;

/// A message as it goes on the wire: a head, and page data if it has any.
pub(super) fn encode(message: v1::PushRequest) -> impl Iterator<Item = Bytes> {
    let (head, data) = match message.message {
        Some(Request::Pages(pages)) => encode_pages(pages, message.seal),
        _ => (prefixed(message.encoded_len(), 0, |head| message.encode_raw(head)), Bytes::new()),
    };
    [head, data].into_iter().filter(|frame| !frame.is_empty())
}

/// The data comes last, so that it can stay where it is.
fn encode_pages(mut pages: v1::Pages, seal: u64) -> (Bytes, Bytes) {
    let data = std::mem::take(&mut pages.data);
    let data_len = data.len() as u64;
    let fields = pages.encoded_len() + key_len(DATA) + encoded_len_varint(data_len) + data.len();
    let total = fixed64::encoded_len(SEAL, &seal)
        + key_len(PAGES)
        + encoded_len_varint(fields as u64)
        + fields;
    let head = prefixed(total, data.len(), |head| {
        fixed64::encode(SEAL, &seal, head);
        encode_key(PAGES, WireType::LengthDelimited, head);
        encode_varint(fields as u64, head);
        pages.encode_raw(head);
        encode_key(DATA, WireType::LengthDelimited, head);
        encode_varint(data_len, head);
    });
    (head, data)
}

/// - `total`: bytes of the message, of which `apart` follow elsewhere.
fn prefixed(total: usize, apart: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut head = BytesMut::with_capacity(PREFIX_BYTES + total - apart);
    head.put_u8(0);
    head.put_u32(u32::try_from(total).expect("a message of a few MiB"));
    write(&mut head);
    debug_assert_eq!(head.len() + apart, PREFIX_BYTES + total);
    head.freeze()
}

/// The messages of a request's body.
pub(super) struct Requests {
    body: Body,
    received: Rope,
    message_bytes_max: usize,
}

/// Bytes in pieces.
#[derive(Default)]
struct Rope {
    pieces: VecDeque<Bytes>,
    len: usize,
}

// === impl Requests ===

impl Requests {
    pub(super) fn new(body: Body, message_bytes_max: usize) -> Self {
        Self { body, received: Rope::default(), message_bytes_max }
    }

    /// The next message, if all of it has come.
    fn decode(&mut self) -> Result<Option<v1::PushRequest>, Status> {
        let Some(prefix) = self.received.peek::<PREFIX_BYTES>() else { return Ok(None) };
        let [compressed, len @ ..] = prefix;
        let (len, limit) = (u32::from_be_bytes(len) as usize, self.message_bytes_max);
        if compressed != 0 {
            return Err(Status::unimplemented("messages must not be compressed"));
        }
        if len > limit {
            return Err(Status::out_of_range(format!("a message of {len} bytes, at most {limit}")));
        }
        if self.received.len < PREFIX_BYTES + len {
            return Ok(None);
        }
        self.received.advance(PREFIX_BYTES);
        let message = v1::PushRequest::decode(self.received.split_to(len));
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn end(&self) -> Option<Result<v1::PushRequest, Status>> {
        (self.received.len > 0).then(|| Err(Status::internal("the body ended within a message")))
    }
}

impl Stream for Requests {
    type Item = Result<v1::PushRequest, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(decoded) = this.decode().transpose() {
                return Poll::Ready(Some(decoded));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                // Trailers say nothing in a request.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.received.push(data);
                    }
                }
                Some(Err(status)) if status.code() == Code::Cancelled => return Poll::Ready(None),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => {
                    let end = this.end();
                    this.received = Rope::default();
                    return Poll::Ready(end);
                }
            }
        }
    }
}

// === impl Rope ===

impl Rope {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
    }

    /// The first bytes, if there are as many.
    fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        let mut first = [0; N];
        let bytes = self.pieces.iter().flatten();
        let count = first.iter_mut().zip(bytes).map(|(to, &from)| *to = from).count();
        (count == N).then_some(first)
    }

    /// Takes the first `len` bytes away. No copy.
    fn split_to(&mut self, len: usize) -> Self {
        let mut front = Self::default();
        while front.len < len {
            let piece = self.pieces.front_mut().expect("as many bytes as are split off");
            let part = piece.split_to(piece.len().min(len - front.len));
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            self.len -= part.len();
            front.push(part);
        }
        front
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| &piece[..])
    }

    fn advance(&mut self, count: usize) {
        self.split_to(count);
    }

    /// Copies only what lies in more pieces than one.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        let mut taken = self.split_to(len);
        if taken.pieces.len() <= 1 {
            return taken.pieces.pop_front().unwrap_or_default();
        }
        let mut whole = BytesMut::with_capacity(len);
        taken.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use rstest::rstest;

    use super::*;

    fn pages(data: Bytes) -> v1::PushRequest {
        let pages = v1::Pages {
            sequence: 300,
            layer_begin: 1,
            layer_end: 3,
            block_begin: 0,
            block_count: 70_000,
            data,
            page_digests: vec![1, u64::MAX],
        };
        v1::PushRequest { message: Some(Request::Pages(pages)), seal: u64::MAX - 1 }
    }

    fn messages() -> Vec<v1::PushRequest> {
        let commit = v1::CommitRecord { tokens: 7, block_count: 200, ..Default::default() };
        vec![
            v1::PushRequest {
                message: Some(Request::Open(v1::Open { lane: 3, ..Default::default() })),
                seal: 1,
            },
            pages(Bytes::from(vec![7; 1 << 20])),
            pages(Bytes::from(vec![9; 100])),
            pages(Bytes::new()),
            v1::PushRequest { message: Some(Request::Commit(commit)), seal: 2 },
            v1::PushRequest { message: None, seal: 3 },
        ]
    }

    fn wire(messages: &[v1::PushRequest]) -> Vec<Bytes> {
        messages.iter().cloned().flat_map(encode).collect()
    }

    fn requests(frames: Vec<Bytes>, message_bytes_max: usize) -> Requests {
        let frames = frames.into_iter().map(|frame| Ok::<_, Status>(Frame::data(frame)));
        Requests::new(Body::new(StreamBody::new(stream::iter(frames))), message_bytes_max)
    }

    #[test]
    fn what_is_sent_is_what_a_generated_client_sends_in_another_order() {
        for message in messages() {
            let frames: Vec<Bytes> = encode(message.clone()).collect();
            let bytes = frames.concat();
            let len = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            assert_eq!((bytes[0], len), (0, bytes.len() - PREFIX_BYTES));
            assert_eq!(v1::PushRequest::decode(&bytes[PREFIX_BYTES..]).unwrap(), message);
        }
    }

    #[rstest]
    #[tokio::test]
    async fn what_comes_is_read_however_it_is_cut(
        #[values(1, 2, 5, 1000, 1 << 20, 1 << 22)] piece: usize,
    ) {
        let sent = messages();
        let bytes = Bytes::from(wire(&sent).concat());
        let cuts = (0..bytes.len()).step_by(piece);
        let frames = cuts.map(|at| bytes.slice(at..bytes.len().min(at + piece))).collect();
        let received: Vec<_> = requests(frames, 2 << 20).map(Result::unwrap).collect().await;
        assert!(received == sent);
    }

    #[tokio::test]
    async fn page_data_is_where_it_came() {
        let data = Bytes::from(vec![7; 1 << 20]);
        let frames = wire(&[pages(data.clone())]);
        assert_eq!(frames[1].as_ptr(), data.as_ptr(), "not copied when sent");
        let received = requests(frames, 2 << 20).next().await.unwrap().unwrap();
        let Some(Request::Pages(pages)) = received.message else { panic!("{received:?}") };
        assert_eq!(pages.data.as_ptr(), data.as_ptr(), "nor when received");
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused() {
        let whole = wire(&[pages(Bytes::from(vec![7; 1000]))]).concat();
        let first = async |bytes: Vec<u8>, max| {
            requests(vec![bytes.into()], max).next().await.unwrap().unwrap_err().code()
        };
        assert_eq!(first(whole.clone(), 1000).await, Code::OutOfRange);
        assert_eq!(first(whole[..500].to_vec(), 2000).await, Code::Internal, "cut off");
        let mut compressed = whole.clone();
        compressed[0] = 1;
        assert_eq!(first(compressed, 2000).await, Code::Unimplemented);
        let mut broken = whole;
        broken[5] = 7;
        assert_eq!(first(broken, 2000).await, Code::Internal);
    }
}
