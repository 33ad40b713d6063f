use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::ready;
use http_body::Frame;
use http_body_util::StreamBody;
use kv_cache::{
    BlockHash, BlockPool, BlockTable, CommitRecord, HostRegion, KvCodec, KvLayout, KvRegion,
    PageRange, PageShape, PageSpan,
};

use super::super::framing::encode;
use super::*;
use crate::message::{PageChunk, Push};
use crate::{Digest, Expected, PendingHandoff, ReceiverConfig, page_digest};

const LAYOUT: KvLayout = KvLayout::whole(2, 1, PageShape::keys_and_values(2, 2), KvCodec::F32);
const BLOCKS: u32 = 2;
const CONTEXT: BlockHash = BlockHash(77);
const BYTE: u8 = 5;

/// A receiver with memory of its own.
struct Side {
    pool: BlockPool,
    region: Arc<dyn KvRegion>,
    receiver: Receiver,
}

// === impl Side ===

impl Side {
    fn new() -> Self {
        let pool = BlockPool::new(BLOCKS, LAYOUT.block_tokens());
        let region: Arc<dyn KvRegion> = Arc::new(HostRegion::new(LAYOUT, BLOCKS));
        let receiver = Receiver::new(pool.clone(), region.clone(), ReceiverConfig::default());
        Self { pool, region, receiver }
    }

    fn expect(&self) -> PendingHandoff {
        let expected = Expected {
            reservation: self.pool.reserve(BLOCKS).unwrap(),
            held: BlockTable::new(LAYOUT.block_tokens()),
            tokens: BLOCKS * LAYOUT.block_tokens(),
            context: CONTEXT,
            deadline: now() + Duration::from_secs(60),
        };
        self.receiver.expect(expected).unwrap()
    }

    /// Serves one stream whose body is `bytes`, to its end.
    async fn serve(&self, bytes: Vec<u8>) {
        let frames = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from(bytes)))]);
        let body = Body::new(StreamBody::new(frames));
        let limit = self.receiver.message_bytes_max();
        let service = KvTransferService::server(self.receiver.clone());
        let Ok(replies) = service.push(Requests::new(body, limit)).await else { return };
        // A sender that hears that all is verified leaves.
        let is_verified = |reply: &Result<v1::PushResponse, Status>| {
            let message = reply.as_ref().ok().and_then(|reply| reply.message.as_ref());
            matches!(message, Some(v1::push_response::Message::Verified(_)))
        };
        replies.take_while(|reply| ready(!is_verified(reply))).for_each(async |_| ()).await;
    }

    /// Waits until all blocks are free: a write under way keeps its own until it has ended.
    async fn free(&self, bit: usize) {
        for _ in 0..10_000 {
            if self.pool.counts().available() == BLOCKS {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("bit {bit}: {:?}", self.pool.counts());
    }

    fn pages(&self, table: &BlockTable) -> Vec<u8> {
        let blocks: Vec<_> = table.blocks().iter().map(kv_cache::BlockHandle::reference).collect();
        let pages = PageRange { layers: 0..LAYOUT.layers(), blocks: &blocks };
        let mut out = vec![0; pages.pages() * LAYOUT.page_bytes()];
        self.region.gather(&pages, kv_cache::Fence::default(), &mut out).unwrap();
        out
    }
}

/// By the runtime's clock, which here is ahead of the machine's: a receiver that misses pages waits for them.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A whole hand-off as it goes on the wire: opened, one message of pages for each layer, committed.
fn hand_off(id: kv_cache::HandoffId) -> Vec<u8> {
    let open = Open { id, incarnation: 0, kv_layout: LAYOUT, epoch: 1, bytes: 0 };
    let envelope = Envelope::new(id);
    let mut messages = vec![LaneOpen { open, lane: 0, lanes: 1 }.into()];
    let mut digest = Digest::default();
    for layer in 0..LAYOUT.layers() {
        let span = PageSpan { layers: layer..layer + 1, blocks: 0..BLOCKS };
        let page = vec![BYTE; LAYOUT.page_bytes()];
        let digests: Vec<u64> =
            span.iter().map(|(layer, block)| page_digest(layer, block, &page)).collect();
        digests.iter().for_each(|&page| digest.add(page));
        let payload = page.repeat(BLOCKS as usize).into();
        let sequence = u64::from(layer) + 1;
        messages.push(envelope.seal_push(Push::Pages(PageChunk {
            sequence,
            span,
            payload,
            digests,
        })));
    }
    messages.push(envelope.seal_push(Push::Commit(CommitRecord {
        tokens: BLOCKS * LAYOUT.block_tokens(),
        blocks: 0..BLOCKS,
        layers: LAYOUT.layers(),
        digest: digest.0,
        context: CONTEXT,
    })));
    messages.into_iter().flat_map(encode).flatten().collect()
}

/// Through the real receiver, with each bit of a whole stream flipped in turn. In virtual time: a receiver that
/// misses pages waits for them until its deadline.
#[tokio::test(start_paused = true)]
async fn whatever_bit_is_flipped_a_table_has_the_right_pages_or_there_is_none() {
    let bits = 8 * hand_off(kv_cache::HandoffId([1; 16])).len();
    let (mut verified, mut damaged) = (0, 0);
    for bit in 0..=bits {
        let side = Side::new();
        let pending = side.expect();
        let mut bytes = hand_off(pending.id());
        // The last one is left as it is.
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        side.serve(bytes).await;
        damaged += side.receiver.stats().counts().corrupt_messages;
        let table = pending.verified(now()).await;
        if let Ok(table) = table {
            assert!(side.pages(&table).iter().all(|&byte| byte == BYTE), "bit {bit}");
            verified += 1;
            drop(table);
        }
        side.free(bit).await;
    }
    assert!(verified >= 1, "the one without a flipped bit");
    assert!(damaged > 500, "{damaged} of {bits} bits made a message with a wrong seal");
}
