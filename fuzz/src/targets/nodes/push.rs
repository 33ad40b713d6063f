//! What a sender of KV pages says: frames of a body, messages, and what they come to.

use std::sync::LazyLock;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::StreamBody;
use kv_transfer::page_digest;
use kv_transfer::transport::KvTransferService;
use prost::Message as _;
use proto::v1::push_request::Message;
use proto::{Sealed as _, v1};
use tokio::runtime::Runtime;
use tonic::Streaming;
use tonic::codec::Codec as _;
use tonic_prost::ProstCodec;
use tower::ServiceExt as _;

use crate::Target;
use crate::fixtures::receiving::{BLOCK_TOKENS, BLOCKS, CONTEXT, LAYOUT, Side};
use crate::words::{joined, messages};

pub(in crate::targets) const TARGET: Target = Target::new("push", run).with_seeds(seeds);

/// Of the first byte: seal each message, send it for the hand-off that is open, cut the body in pieces.
const SEALED: u8 = 1;
const OURS: u8 = 2;
const IN_PIECES: u8 = 4;

/// Its clock goes on when nothing else does: a stream that waits for another waits no time.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
});

/// Takes streams, a message without bytes between two of them.
fn run(input: &[u8]) {
    let Some((&how, bytes)) = input.split_first() else { return };
    RUNTIME.block_on(async {
        let side = Side::new();
        let pending = side.expect();
        let service = KvTransferService::server(side.receiver.clone());
        let messages: Vec<&[u8]> = messages(bytes).collect();
        let streams = messages.split(|message| message.is_empty());
        let bodies = streams.map(|stream| body(stream, how, &pending.id().0));
        join_all(bodies.map(|body| push(service.clone(), body, how))).await;
        side.close(pending).await;
    });
}

/// Sends one stream, and reads its answers to their end.
async fn push(service: KvTransferService, body: Vec<u8>, how: u8) {
    let size = if how & IN_PIECES == 0 { body.len().max(1) } else { 3 };
    let pieces: Vec<_> = body
        .chunks(size)
        .map(|piece| Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    let body = tonic::body::Body::new(StreamBody::new(futures::stream::iter(pieces)));
    let request = Request::post("/baton.v1.KvTransfer/Push").body(body).expect("a request");
    let Ok(response) = service.oneshot(request).await;
    let decoder = ProstCodec::<v1::PushRequest, v1::PushResponse>::default().decoder();
    let mut replies =
        Streaming::new_response(decoder, response.into_body(), StatusCode::OK, None, None);
    while let Some(Ok(reply)) = replies.next().await {
        // Who is told that all is there leaves.
        if matches!(reply.message, Some(v1::push_response::Message::Verified(_))) {
            return;
        }
    }
}

/// The messages of a stream in their frames; what is no message goes as it is.
fn body(stream: &[&[u8]], how: u8, id: &[u8]) -> Vec<u8> {
    let mut key = 0;
    let framed = |bytes: &&[u8]| {
        let Ok(mut message) = v1::PushRequest::decode(*bytes) else { return bytes.to_vec() };
        let seal_key = if let Some(Message::Open(open)) = &mut message.message {
            if how & OURS != 0 {
                open.handoff_id = id.to_vec();
            }
            if let Ok(id) = proto::convert::transfer::handoff_id(&open.handoff_id) {
                key = v1::PushRequest::seal_key(id);
            }
            0
        } else {
            key
        };
        let message = if how & SEALED == 0 { message } else { message.sealed(seal_key) };
        let length = u32::try_from(message.encoded_len()).expect("a short message");
        [&[0][..], &length.to_be_bytes(), &message.encode_to_vec()].concat()
    };
    stream.iter().flat_map(framed).collect()
}

fn seeds() -> Vec<Vec<u8>> {
    let open = |lane: u32, lanes: u32| {
        Message::Open(v1::Open {
            handoff_id: vec![0; 16],
            incarnation: 0,
            kv_layout: LAYOUT.to_string(),
            epoch: 1,
            lanes,
            lane,
        })
    };
    let page = vec![7; LAYOUT.page_bytes()];
    let pages = |sequence: u64, layer: u32| {
        Message::Pages(v1::Pages {
            sequence,
            layer_begin: layer,
            layer_end: layer + 1,
            block_begin: 0,
            block_count: BLOCKS,
            data: page.repeat(BLOCKS as usize).into(),
            page_digests: (0..BLOCKS).map(|block| page_digest(layer, block, &page)).collect(),
        })
    };
    let digests =
        (0..LAYOUT.layers()).flat_map(|layer| (0..BLOCKS).map(move |block| (layer, block)));
    let digest =
        digests.map(|(layer, block)| page_digest(layer, block, &page)).fold(0, u64::wrapping_add);
    let commit = || {
        Message::Commit(v1::CommitRecord {
            tokens: BLOCKS * BLOCK_TOKENS,
            block_begin: 0,
            block_count: BLOCKS,
            layers: LAYOUT.layers(),
            digest,
            context: CONTEXT.to_bytes().to_vec(),
        })
    };
    let write = |how: u8, streams: &[Vec<Message>]| {
        let encode = |message: &Message| {
            v1::PushRequest { message: Some(message.clone()), seal: 0 }.encode_to_vec()
        };
        let streams: Vec<Vec<Vec<u8>>> =
            streams.iter().map(|stream| stream.iter().map(encode).collect()).collect();
        [vec![how], joined(streams.join(&Vec::new()))].concat()
    };
    vec![
        write(SEALED | OURS, &[vec![open(0, 1), pages(1, 0), pages(2, 1), commit()]]),
        write(
            SEALED | OURS | IN_PIECES,
            &[vec![open(0, 1), commit(), pages(1, 1), pages(2, 0), commit()]],
        ),
        write(
            SEALED | OURS,
            &[vec![open(0, 2), pages(1, 0), commit()], vec![open(1, 2), pages(2, 1)]],
        ),
        write(SEALED, &[vec![open(0, 1), pages(1, 0)]]),
        write(OURS, &[vec![open(0, 1)]]),
    ]
}
