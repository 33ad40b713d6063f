//! The receiver against a scripted sender: what it believes and what it doesn't.

mod support;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt as _;
use kv_cache::{
    BlockHash, BlockTable, Fence, HostRegion, KvLayout, KvRegion, PageRange, PeerPages, PeerRegion,
    RegionError,
};
use kv_transfer::message::{Open, PageChunk, PagesInPlace, Payload, Push, Reply};
use kv_transfer::transport::{Faults, Link, OpenError};
use kv_transfer::{
    CommitRecord, Digest, HandoffId, PageSpan, PendingHandoff, RejectReason, TransferError,
};
use parking_lot::{Condvar, Mutex};
use rstest::rstest;

use self::support::{
    BLOCK_TOKENS, CONTEXT, INCARNATION, LAYERS, Memory, PATIENCE, Via, World, layout, uniform,
    wait_until,
};

const BLOCKS: u32 = 3;
const TOKENS: u32 = BLOCKS * BLOCK_TOKENS;

fn whole() -> PageSpan {
    PageSpan { layers: 0..LAYERS, blocks: 0..BLOCKS }
}

fn chunk(sequence: u64, span: PageSpan, byte: u8) -> PageChunk {
    let (data, digests) = uniform(&span, byte);
    PageChunk { sequence, span, payload: Payload::Bytes(Bytes::from(data)), digests }
}

/// Pages of `table`, in the sending memory of `world`.
fn in_place(world: &World, table: &BlockTable, sequence: u64, span: PageSpan) -> PageChunk {
    let blocks = span.blocks.start as usize..span.blocks.end as usize;
    let source = PagesInPlace {
        region: world.sending.region.clone(),
        blocks: table.blocks()[blocks].to_vec(),
        fence: Fence::default(),
    };
    let digests = source.digests(&span).collect();
    PageChunk { sequence, span, payload: Payload::InPlace(Arc::new(source)), digests }
}

fn record(byte: u8) -> CommitRecord {
    let mut digest = Digest::default();
    uniform(&whole(), byte).1.into_iter().for_each(|page| digest.add(page));
    let (blocks, digest) = (0..BLOCKS, digest.0);
    CommitRecord { tokens: TOKENS, blocks, layers: LAYERS, digest, context: CONTEXT }
}

async fn open(world: &World, id: HandoffId, epoch: u64) -> Result<Link, OpenError> {
    let kv_layout = layout();
    let open = Open { id, incarnation: INCARNATION, kv_layout, epoch, bytes: u64::MAX };
    world.transport.open(&world.target, open).await
}

/// Says `push` and returns the answer.
async fn ask(link: &mut Link, push: Push) -> Reply {
    link.pushes.send(push).await.unwrap();
    answer(link).await
}

async fn answer(link: &mut Link) -> Reply {
    let reply = tokio::time::timeout(PATIENCE, link.replies.next()).await;
    reply.unwrap().unwrap().unwrap()
}

async fn verified(pending: PendingHandoff) -> Result<kv_cache::BlockTable, TransferError> {
    pending.verified(Instant::now() + PATIENCE).await
}

fn reason(reply: &Reply) -> RejectReason {
    match reply {
        Reply::Rejected(why) => why.reason,
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[tokio::test]
async fn a_commit_names_what_is_missing_until_nothing_is(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    assert_eq!(ask(&mut link, Push::Commit(record(5))).await, Reply::Missing(vec![whole()]));
    let upper = PageSpan { layers: 0..2, blocks: 0..BLOCKS };
    let lower = PageSpan { layers: 2..LAYERS, blocks: 0..BLOCKS };
    let acked = ask(&mut link, Push::Pages(chunk(1, upper, 5))).await;
    assert_eq!(acked, Reply::Ack { sequence: 1 });
    assert_eq!(ask(&mut link, Push::Commit(record(5))).await, Reply::Missing(vec![lower.clone()]));
    ask(&mut link, Push::Pages(chunk(2, lower, 5))).await;
    let pages = u64::from(BLOCKS * LAYERS);
    assert_eq!(ask(&mut link, Push::Commit(record(5))).await, Reply::Verified { pages });
    assert_eq!(verified(pending).await.unwrap().tokens(), TOKENS as usize);
    world.assert_idle();
}

#[rstest]
#[tokio::test]
async fn blocks_are_bound_only_when_their_pages_come(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    let counts = world.receiving.pool.counts();
    assert_eq!((counts.reserved, counts.active), (BLOCKS, 0));
    let one = PageSpan { layers: 1..2, blocks: 2..3 };
    ask(&mut link, Push::Pages(chunk(1, one, 5))).await;
    let counts = world.receiving.pool.counts();
    assert_eq!((counts.reserved, counts.active), (BLOCKS - 1, 1));
    assert_eq!((world.receiver.held_blocks().len(), world.orphans()), (1, 0));
    drop(pending);
    assert!(world.receiving.all_free());
}

#[rstest]
#[tokio::test]
async fn a_later_stream_takes_over_and_the_earlier_one_cannot_write(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut first = open(&world, pending.id(), 1).await.unwrap();
    let mut second = open(&world, pending.id(), 2).await.unwrap();
    assert_eq!(reason(&answer(&mut first).await), RejectReason::Superseded, "it is told at once");
    // Whether it is taken or not, it is not written.
    let _ = first.pushes.send(Push::Pages(chunk(1, whole(), 66))).await;
    for epoch in [1, 2] {
        let late = open(&world, pending.id(), epoch).await;
        let Err(OpenError::Rejected(why)) = late else { panic!("{late:?}") };
        assert_eq!(why.reason, RejectReason::Superseded, "a stream that was held up on its way");
    }
    ask(&mut second, Push::Pages(chunk(1, whole(), 5))).await;
    ask(&mut second, Push::Commit(record(5))).await;
    let table = verified(pending).await.unwrap();
    assert_eq!(world.receiving.page(0, &table.blocks()[0]), vec![5; layout().page_bytes()]);
    assert_eq!(world.receiver.stats().counts().pages, u64::from(BLOCKS * LAYERS));
}

#[rstest]
#[tokio::test]
async fn a_sender_that_missed_the_answer_can_ask_again(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
    #[values(false, true)] taken: bool,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let id = pending.id();
    let mut link = open(&world, id, 1).await.unwrap();
    ask(&mut link, Push::Pages(chunk(1, whole(), 5))).await;
    ask(&mut link, Push::Commit(record(5))).await;
    let (table, pending) =
        if taken { (Some(verified(pending).await.unwrap()), None) } else { (None, Some(pending)) };
    let mut again = open(&world, id, 2).await.unwrap();
    let written = world.receiver.stats().counts().pages;
    ask(&mut again, Push::Pages(chunk(1, whole(), 66))).await;
    assert_eq!(world.receiver.stats().counts().pages, written, "a verified page is never written");
    let verified_again = ask(&mut again, Push::Commit(record(5))).await;
    assert!(matches!(verified_again, Reply::Verified { .. }), "{verified_again:?}");
    assert_eq!(world.receiver.stats().counts().handoffs_verified, 1);
    drop((table, pending));
    world.assert_idle();
}

#[rstest]
#[case::another_layer(pages(|chunk| chunk.span.layers = 1..LAYERS + 1))]
#[case::another_block(pages(|chunk| chunk.span.blocks = 1..BLOCKS + 1))]
#[case::too_few_bytes(pages(|chunk| chunk.payload = Payload::Bytes(Bytes::from_static(&[5]))))]
#[case::too_few_digests(pages(|chunk| chunk.digests.truncate(1)))]
#[case::no_pages(pages(|chunk| chunk.span.blocks = 1..1))]
#[case::other_tokens(Push::Commit(CommitRecord { tokens: TOKENS + 1, ..record(5) }))]
#[case::other_blocks(Push::Commit(CommitRecord { blocks: 1..BLOCKS, ..record(5) }))]
#[case::other_layers(Push::Commit(CommitRecord { layers: 1, ..record(5) }))]
#[tokio::test]
async fn what_was_not_promised_room_ends_the_hand_off(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
    #[case] push: Push,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    assert_eq!(reason(&ask(&mut link, push).await), RejectReason::OutOfRange);
    let error = verified(pending).await.unwrap_err();
    let TransferError::Rejected(why) = &error else { panic!("{error}") };
    assert_eq!(why.reason, RejectReason::OutOfRange);
    assert_eq!(world.receiver.stats().counts().pages, 0);
    world.assert_idle();
}

fn pages(edit: impl Fn(&mut PageChunk)) -> Push {
    let mut chunk = chunk(1, whole(), 5);
    edit(&mut chunk);
    Push::Pages(chunk)
}

#[rstest]
#[tokio::test]
async fn a_set_that_differs_from_its_record_is_refused(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    ask(&mut link, Push::Pages(chunk(1, whole(), 5))).await;
    let reply = ask(&mut link, Push::Commit(record(6))).await;
    assert_eq!(reason(&reply), RejectReason::DigestMismatch);
    let error = verified(pending).await.unwrap_err();
    assert!(matches!(error, TransferError::Rejected(_)), "{error}");
    world.assert_idle();
}

#[rstest]
#[tokio::test]
async fn pages_in_the_wrong_place_are_corrupt(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    let mut moved = chunk(1, PageSpan { layers: 0..1, blocks: 0..1 }, 5);
    moved.span.blocks = 1..2;
    ask(&mut link, Push::Pages(moved)).await;
    let counts = world.receiver.stats().counts();
    assert_eq!((counts.pages, counts.corrupt_pages), (0, 1));
    assert_eq!(ask(&mut link, Push::Commit(record(5))).await, Reply::Missing(vec![whole()]));
}

#[rstest]
#[tokio::test]
async fn a_page_that_is_there_is_not_written_again(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    let there = PageSpan { layers: 1..2, blocks: 0..2 };
    ask(&mut link, Push::Pages(chunk(1, there.clone(), 5))).await;
    ask(&mut link, Push::Pages(chunk(2, whole(), 6))).await;
    let counts = world.receiver.stats().counts();
    assert_eq!((counts.pages, counts.duplicate_pages), (u64::from(BLOCKS * LAYERS), 2));
    let mut digest = Digest::default();
    let pages = whole().iter().zip(uniform(&whole(), 5).1).zip(uniform(&whole(), 6).1);
    for (((layer, block), five), six) in pages {
        let kept = there.layers.contains(&layer) && there.blocks.contains(&block);
        digest.add(if kept { five } else { six });
    }
    ask(&mut link, Push::Commit(CommitRecord { digest: digest.0, ..record(5) })).await;
    let table = verified(pending).await.unwrap();
    let page = |layer, block: usize| world.receiving.page(layer, &table.blocks()[block])[0];
    assert_eq!([page(1, 0), page(1, 1), page(1, 2), page(0, 0)], [5, 5, 6, 6]);
}

/// The pages are as they were sent, and of another prompt.
#[rstest]
#[tokio::test]
async fn pages_of_other_tokens_are_not_given_out(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    ask(&mut link, Push::Pages(chunk(1, whole(), 5))).await;
    let context = BlockHash(CONTEXT.0 ^ 1 << 77);
    let reply = ask(&mut link, Push::Commit(CommitRecord { context, ..record(5) })).await;
    assert_eq!(reason(&reply), RejectReason::ContextMismatch);
    let error = verified(pending).await.unwrap_err();
    let TransferError::Rejected(why) = error else { panic!("{error}") };
    assert_eq!(why.reason, RejectReason::ContextMismatch);
    assert_eq!(world.receiving.pool.counts().active, 0);
}

#[rstest]
#[tokio::test]
async fn nobody_knows_a_made_up_hand_off(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let refused = open(&world, HandoffId([1; 16]), 1).await;
    let Err(OpenError::Rejected(why)) = refused else { panic!("{refused:?}") };
    assert_eq!(why.reason, RejectReason::UnknownHandoff);
}

#[tokio::test]
async fn pages_in_place_are_those_that_their_digests_name() {
    let world = World::new(Via::InPlace, Faults::default());
    let table = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    // The second block where the first is meant, in one of two layers.
    let both = PageSpan { layers: 0..2, blocks: 0..1 };
    let mut swapped = in_place(&world, &table, 1, both);
    let other = in_place(&world, &table, 1, PageSpan { layers: 0..1, blocks: 1..2 });
    swapped.digests[1] = other.digests[0];
    assert_eq!(ask(&mut link, Push::Pages(swapped)).await, Reply::Ack { sequence: 1 });
    let counts = world.receiver.stats().counts();
    assert_eq!((counts.pages, counts.in_place_pages, counts.corrupt_pages), (1, 1, 1));
    let rest = in_place(&world, &table, 2, whole());
    let mut digest = Digest::default();
    rest.digests.iter().for_each(|&page| digest.add(page));
    ask(&mut link, Push::Pages(rest)).await;
    assert_eq!(world.receiver.stats().counts().duplicate_pages, 1);
    let record = CommitRecord { digest: digest.0, ..record(5) };
    assert!(matches!(ask(&mut link, Push::Commit(record)).await, Reply::Verified { .. }));
    world.assert_same_pages(&table, &verified(pending).await.unwrap());
}

#[rstest]
#[case::too_few_blocks(Via::InPlace, 1, RejectReason::OutOfRange)]
#[case::memory_that_is_not_reached(Via::InProcess, 0, RejectReason::Internal)]
#[tokio::test]
async fn pages_in_place_that_cannot_be_copied_end_the_hand_off(
    #[case] via: Via,
    #[case] missing_blocks: u32,
    #[case] expected: RejectReason,
) {
    let world = World::new(via, Faults::default());
    let table = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    let some = PageSpan { layers: 0..LAYERS, blocks: 0..BLOCKS - missing_blocks };
    let chunk = PageChunk { span: whole(), ..in_place(&world, &table, 1, some) };
    assert_eq!(reason(&ask(&mut link, Push::Pages(chunk)).await), expected);
    verified(pending).await.unwrap_err();
    assert_eq!(world.receiver.stats().counts().pages, 0);
    drop(table);
    world.assert_idle();
}

#[rstest]
#[tokio::test]
async fn a_transport_of_bytes_ends_a_stream_that_names_places(
    #[values(Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let table = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    link.pushes.send(Push::Pages(in_place(&world, &table, 1, whole()))).await.unwrap();
    let cut = link.replies.next().await.expect("why it ends").unwrap_err();
    assert!(cut.0.contains("carries bytes"), "{cut}");
    drop((link, pending));
    assert_eq!(world.receiver.stats().counts().pages, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_are_read_in_place_are_freed_when_that_has_ended() {
    let (world, region) = gated(Via::InPlace);
    region.set_closed(true);
    let table = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    let chunk = in_place(&world, &table, 1, whole());
    link.pushes.send(Push::Pages(chunk)).await.unwrap();
    tokio::select! {
        reply = link.replies.next() => panic!("{reply:?}"),
        () = wait_until("the copy is at the gate", || region.waiting() == 1) => {}
    }
    // Neither side wants it any more.
    drop((link, table, pending));
    assert_eq!(world.sending.pool.counts().active, BLOCKS, "they are still read");
    assert_eq!(world.receiving.pool.counts().active, BLOCKS, "they are still written");
    assert_eq!((world.receiver.held_blocks().len(), world.orphans()), (BLOCKS as usize, 0));
    region.set_closed(false);
    let all_free = || world.sending.all_free() && world.receiving.all_free();
    wait_until("all blocks are free", all_free).await;
    world.assert_idle();
}

/// A region whose writes wait at a gate.
struct Gated {
    inner: HostRegion,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    waiting: u32,
}

impl Gated {
    fn set_closed(&self, closed: bool) {
        self.gate.lock().closed = closed;
        self.changed.notify_all();
    }

    fn waiting(&self) -> u32 {
        self.gate.lock().waiting
    }

    fn pass(&self) {
        let mut gate = self.gate.lock();
        gate.waiting += 1;
        // Not for ever: a test that has failed could not end.
        let closed = |gate: &mut Gate| gate.closed;
        self.changed.wait_while_for(&mut gate, closed, PATIENCE / 3);
        gate.waiting -= 1;
    }
}

impl KvRegion for Gated {
    fn layout(&self) -> &KvLayout {
        self.inner.layout()
    }

    fn gather(
        &self,
        pages: &PageRange<'_>,
        fence: Fence,
        out: &mut [u8],
    ) -> Result<(), RegionError> {
        self.inner.gather(pages, fence, out)
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        self.pass();
        self.inner.scatter(pages, bytes)
    }

    fn as_peer(&self) -> Option<&dyn PeerRegion> {
        Some(self)
    }
}

impl PeerRegion for Gated {
    fn reaches(&self, peer: &dyn KvRegion) -> bool {
        self.inner.reaches(peer)
    }

    fn copy_from(&self, pages: &PageRange<'_>, peer: &PeerPages<'_>) -> Result<(), RegionError> {
        self.pass();
        self.inner.copy_from(pages, peer)
    }
}

fn gated(via: Via) -> (World, Arc<Gated>) {
    let region = Arc::new(Gated {
        inner: HostRegion::new(layout(), 512),
        gate: Mutex::default(),
        changed: Condvar::new(),
    });
    let memory = Memory::over(region.clone(), 512);
    (World::with_memory(via, Faults::default(), memory), region)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_under_a_writers_hands_are_freed_when_it_has_ended(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let (world, region) = gated(via);
    region.set_closed(true);
    let pending = world.expect(TOKENS, 0, 1);
    let mut link = open(&world, pending.id(), 1).await.unwrap();
    link.pushes.send(Push::Pages(chunk(1, whole(), 5))).await.unwrap();
    let reply = async { answer(&mut link).await };
    let script = async {
        wait_until("the writer is at the gate", || region.waiting() == 1).await;
        drop(pending);
        assert_eq!(world.receiving.pool.counts().active, BLOCKS, "it may still write to them");
        assert_eq!(world.receiver.held_blocks().len(), BLOCKS as usize);
        assert_eq!(world.orphans(), 0, "they are known to be held");
        region.set_closed(false);
        wait_until("the blocks are free", || world.receiving.all_free()).await;
    };
    tokio::join!(reply, script);
    world.assert_idle();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_takes_over_waits_for_the_writer_of_the_one_before(
    #[values(Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let (world, region) = gated(via);
    region.set_closed(true);
    let pending = world.expect(TOKENS, 0, 1);
    let mut first = open(&world, pending.id(), 1).await.unwrap();
    first.pushes.send(Push::Pages(chunk(1, whole(), 5))).await.unwrap();
    tokio::select! {
        reply = first.replies.next() => panic!("{reply:?}"),
        () = wait_until("the writer is at the gate", || region.waiting() == 1) => {}
    }
    drop(first);
    let second = open(&world, pending.id(), 2);
    tokio::pin!(second);
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "the first stream is still writing");
    region.set_closed(false);
    let mut second = second.await.unwrap();
    // What the first one wrote was checked and counts.
    assert!(matches!(ask(&mut second, Push::Commit(record(5))).await, Reply::Verified { .. }));
    assert_eq!(verified(pending).await.unwrap().blocks().len(), BLOCKS as usize);
    world.assert_idle();
}
