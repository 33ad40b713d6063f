//! What a receiver of KV pages answers, and what its sender makes of it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use kv_cache::{BlockHash, BlockPool, Fence, HandoffId, HostRegion, KvRegion};
use kv_transfer::message::{Open, Push, Reply};
use kv_transfer::transport::{Link, OpenError, Target as Receiver, Transport};
use kv_transfer::{FilledPages, SendJob, Sender, SenderConfig, Transports};
use parking_lot::Mutex;
use prost::Message as _;
use proto::v1;
use proto::v1::push_response::Message;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Target;
use crate::fixtures::receiving::{BLOCK_TOKENS, BLOCKS, LAYOUT};
use crate::words::{joined, messages};

pub(in crate::targets) const TARGET: Target = Target::new("push_reply", run).with_seeds(seeds);

/// Its clock goes on when nothing else does.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
});

/// Times that a sender sends what is missing.
const ROUNDS_MAX: u32 = 2;
/// Streams that it opens without progress.
const OPENS_MAX: u32 = 2;

/// Carries nothing, and answers as it was told: on each stream, as if it were the first.
struct Scripted {
    replies: Vec<Reply>,
    /// Pages that were pushed.
    pages: Arc<Mutex<usize>>,
}

/// Takes what a receiver says on a stream, one message after the other.
fn run(input: &[u8]) {
    let decoded = messages(input).filter_map(|bytes| v1::PushResponse::decode(bytes).ok());
    let replies: Vec<Reply> = decoded.filter_map(|wire| Reply::try_from(wire).ok()).collect();
    for reply in &replies {
        assert_eq!(Reply::try_from(v1::PushResponse::from(reply.clone())).as_ref(), Ok(reply));
    }
    let pushed = RUNTIME.block_on(send(replies));
    let whole = (LAYOUT.layers() * BLOCKS) as usize;
    // Each round may end with a stream that breaks, and begins anew then.
    let streams = ((ROUNDS_MAX + 1) * (OPENS_MAX + 1) + 1) as usize;
    assert!(pushed <= whole * streams, "{pushed} pages sent, of {whole}");
}

async fn send(replies: Vec<Reply>) -> usize {
    let pages = Arc::new(Mutex::new(0));
    let transport: Arc<dyn Transport> = Arc::new(Scripted { replies, pages: pages.clone() });
    let config =
        SenderConfig { rounds_max: ROUNDS_MAX, opens_max: OPENS_MAX, ..SenderConfig::default() };
    let sender = Sender::new(Transports::new(vec![transport]), config);
    let pool = BlockPool::new(BLOCKS, BLOCK_TOKENS);
    let mut credit = pool.reserve(BLOCKS).expect("all blocks");
    let region: Arc<dyn KvRegion> = Arc::new(HostRegion::new(LAYOUT, BLOCKS));
    let queue = sender.start(job(region)).expect("a hand-off");
    let blocks = (0..BLOCKS).map(|_| credit.bind().expect("a block")).collect();
    let filled =
        FilledPages { layers: 0..LAYOUT.layers(), first_block: 0, blocks, fence: Fence::default() };
    // A refusal may come before it.
    if queue.push(filled).await.is_ok() {
        let _ = queue.commit(BlockHash(77)).await;
    }
    sender.drained().await;
    *pages.lock()
}

fn job(region: Arc<dyn KvRegion>) -> SendJob {
    SendJob {
        id: HandoffId([1; 16]),
        target: Receiver { worker: "d".into(), uri: "scripted".into(), incarnation: 1 },
        transports: vec!["scripted".into()],
        blocks: 0..BLOCKS,
        tokens: BLOCKS * BLOCK_TOKENS,
        region,
        deadline: (Instant::now() + Duration::from_secs(60)).into_std(),
    }
}

// === impl Scripted ===

#[async_trait]
impl Transport for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn reaches(&self, _: &Receiver) -> bool {
        true
    }

    async fn open(&self, _: &Receiver, _: Open) -> Result<Link, OpenError> {
        let (pushes, pushed) = mpsc::channel::<Push>(1);
        let (pages, script) = (self.pages.clone(), self.replies.clone().into_iter());
        // An answer for each push, as far as there are any.
        let replies = futures::stream::unfold((pushed, script), move |(mut pushed, mut script)| {
            let pages = pages.clone();
            async move {
                if let Push::Pages(chunk) = pushed.recv().await? {
                    *pages.lock() += chunk.span.pages();
                }
                Some((Ok(script.next()?), (pushed, script)))
            }
        });
        Ok(Link { window_bytes: 1 << 20, pushes, replies: replies.boxed() })
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let span = |blocks: u32| v1::PageSpan {
        layer_begin: 0,
        layer_end: 1,
        block_begin: 0,
        block_count: blocks,
    };
    let ack = |sequence| Message::Ack(v1::Ack { sequence });
    let missing = |spans| Message::Missing(v1::Missing { spans });
    let verified = || Message::Verified(v1::Verified { pages: 4 });
    let rejected = Message::Rejected(v1::Rejected { reason: 6, detail: "late".into() });
    let scripts = [
        vec![ack(1), verified()],
        vec![ack(1), missing(vec![span(1), span(2)]), ack(2), verified()],
        vec![ack(1), missing(vec![span(1)]), missing(vec![span(1)]), missing(vec![span(1)])],
        vec![Message::Opened(v1::Opened { window_bytes: 5 })],
        vec![ack(1), rejected],
    ];
    let encode = |message| v1::PushResponse { message: Some(message), seal: 0 }.encode_to_vec();
    scripts.into_iter().map(|script| joined(script.into_iter().map(encode))).collect()
}
