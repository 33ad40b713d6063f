//! What every transport must do, plain and under every fault.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use kv_cache::{HostRegion, KvCodec};
use kv_transfer::transport::Faults;
use kv_transfer::{RejectReason, SenderConfig, TransferError};
use rstest::rstest;

use self::support::{
    BLOCK_TOKENS, CONTEXT, Fault, LAYERS, PATIENCE, PushOrder, Via, World, filled, wait_until,
};

/// 21 blocks, the last one partial.
const TOKENS: u32 = 20 * BLOCK_TOKENS + 1;

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_arrives_as_it_was_sent(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
    #[values(
        Fault::None,
        Fault::Drop,
        Fault::Duplicate,
        Fault::Corrupt,
        Fault::Delay,
        Fault::Cut,
        Fault::All
    )]
    fault: Fault,
    #[values(PushOrder::Layers, PushOrder::Chunks, PushOrder::Backwards)] order: PushOrder,
) {
    let world = World::new(via, fault.faults(11));
    let report = world.hand_over(TOKENS, 0, order, 1).await;
    assert_eq!(report.transport, world.transport.name());
    assert_eq!(report.blocks, 21);
    assert_eq!(report.bytes, 21 * support::layout().block_bytes() as u64);
    world.sender.drained().await;
    world.assert_idle();
    let (sent, received) = (world.sender.stats().counts(), world.receiver.stats().counts());
    assert_eq!(received.pages, u64::from(21 * LAYERS), "each page is written once");
    assert_eq!((sent.handoffs_verified, received.handoffs_verified), (1, 1));
    assert_eq!(sent.resent_pages, u64::from(report.resent_pages));
    let in_place = if via == Via::InPlace { received.pages } else { 0 };
    assert_eq!(received.in_place_pages, in_place);
    assert_eq!(sent.in_place_pages > 0, via == Via::InPlace);
    match fault {
        Fault::None | Fault::Delay => assert_eq!((report.resent_pages, sent.streams_cut), (0, 0)),
        Fault::Drop => assert!(report.resent_pages > 0),
        Fault::Duplicate => assert!(received.duplicate_pages > 0 && report.resent_pages == 0),
        Fault::Corrupt => assert!(received.corrupt_pages > 0 && report.resent_pages > 0),
        Fault::Cut => assert_eq!(sent.streams_cut, 3),
        Fault::All => assert!(sent.streams_cut >= 2 && report.resent_pages > 0),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_prefix_is_not_sent(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
    #[values(Fault::None, Fault::All)] fault: Fault,
    #[values(1, 17, 20, 21)] held_blocks: u32,
) {
    let world = World::new(via, fault.faults(5));
    let report = world.hand_over(21 * BLOCK_TOKENS, held_blocks, PushOrder::Chunks, 2).await;
    assert_eq!(report.blocks, 21 - held_blocks);
    let pages = u64::from((21 - held_blocks) * LAYERS);
    assert_eq!(world.receiver.stats().counts().pages, pages);
    world.sender.drained().await;
    world.assert_idle();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hand_offs_at_once_dont_mix(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
    #[values(Fault::None, Fault::All)] fault: Fault,
) {
    let world = World::new(via, fault.faults(3));
    let orders = [PushOrder::Layers, PushOrder::Chunks, PushOrder::Backwards];
    let hand_over = |index: u32| {
        let order = orders[index as usize % orders.len()];
        world.hand_over(3 + index % 13, 0, order, u64::from(index))
    };
    join_all((0..100).map(hand_over)).await;
    world.sender.drained().await;
    world.assert_idle();
    assert_eq!(world.receiver.stats().counts().handoffs_verified, 100);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_seed_all_pages_arrive(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    for seed in 0..24 {
        let world = World::new(via, Fault::All.faults(seed));
        // The sequence's number is in the message of a failure.
        world.hand_over(TOKENS, seed as u32 % 5, PushOrder::Chunks, seed).await;
        world.sender.drained().await;
        world.assert_idle();
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_both_sides_and_returns_all_blocks(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let time = Duration::from_millis(200);
    let sent = world.sending.table(TOKENS, 1);
    let pending = world.try_expect(TOKENS, 2, 1, time).unwrap();
    let mut job = world.job(pending.id(), TOKENS, 2);
    job.deadline = Instant::now() + time;
    let queue = world.sender.start(job).unwrap();
    for pages in filled(&sent, 2, PushOrder::Layers).into_iter().take(2) {
        queue.push(pages).await.unwrap();
    }
    let started = Instant::now();
    let (failed, verified) = tokio::join!(queue.failed(), pending.verified(started + PATIENCE));
    assert!(started.elapsed() < PATIENCE / 2);
    assert_eq!(verified.unwrap_err(), TransferError::Deadline);
    match failed {
        TransferError::Deadline => {}
        // The receiver's clock was a little earlier.
        TransferError::Rejected(why) => assert_eq!(why.reason, RejectReason::UnknownHandoff),
        other => panic!("{other}"),
    }
    drop((queue, sent));
    world.sender.drained().await;
    wait_until("the blocks are free", || world.receiving.all_free()).await;
    world.assert_idle();
    assert_eq!(world.receiver.stats().counts().handoffs_expired, 1);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_gives_up_stops_the_sender(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let sent = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let queue = world.start(pending.id(), TOKENS, 0);
    queue.push(filled(&sent, 0, PushOrder::Layers).swap_remove(0)).await.unwrap();
    wait_until("pages have come", || world.receiver.stats().counts().pages == 21).await;
    assert_eq!(world.orphans(), 0);
    drop(pending);
    // The sender has nothing left to send: it must hear of it all the same.
    let failed = tokio::time::timeout(Duration::from_secs(5), queue.failed()).await.unwrap();
    assert_rejected(&failed, RejectReason::UnknownHandoff);
    let again = queue.push(filled(&sent, 0, PushOrder::Layers).swap_remove(1)).await;
    assert_rejected(&again.unwrap_err(), RejectReason::UnknownHandoff);
    drop((queue, sent));
    world.sender.drained().await;
    world.assert_idle();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_gives_up_lets_its_blocks_go(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let sent = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let queue = world.start(pending.id(), TOKENS, 0);
    for pages in filled(&sent, 0, PushOrder::Layers) {
        queue.push(pages).await.unwrap();
    }
    drop((queue, sent));
    world.sender.drained().await;
    wait_until("the sender's blocks are free", || world.sending.all_free()).await;
    assert_eq!(world.sender.stats().counts().handoffs_abandoned, 1);
    assert_eq!(world.receiver.open_handoffs(), 1, "the receiver's end is its own to give up");
    drop(pending);
    wait_until("the receiver's blocks are free", || world.receiving.all_free()).await;
    world.assert_idle();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_life_of_the_receiver_refuses(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut job = world.job(pending.id(), TOKENS, 0);
    job.target.incarnation -= 1;
    let queue = world.sender.start(job).unwrap();
    assert_rejected(&queue.failed().await, RejectReason::StaleIncarnation);
    assert_eq!(world.receiver.open_handoffs(), 1, "a stale call ends nothing");
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_layout_is_refused_on_both_sides(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let world = World::new(via, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut job = world.job(pending.id(), TOKENS, 0);
    let mut other = support::layout();
    other.codec = KvCodec::F16;
    job.region = Arc::new(HostRegion::new(other, 512));
    let queue = world.sender.start(job).unwrap();
    assert_rejected(&queue.failed().await, RejectReason::LayoutMismatch);
    let verified = pending.verified(Instant::now() + PATIENCE).await;
    assert_rejected(&verified.unwrap_err(), RejectReason::LayoutMismatch);
    world.assert_idle();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_never_arrive_right_are_never_read(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let mut world = World::new(via, Faults { corrupt: 1.0, ..Faults::default() });
    // One page a message, so that the one flipped bit hits every page.
    let page_bytes = support::layout().page_bytes();
    world.configure(SenderConfig {
        message_bytes: page_bytes,
        in_place_bytes: page_bytes,
        ..support::sender_config()
    });
    let sent = world.sending.table(BLOCK_TOKENS, 1);
    let pending = world.expect(BLOCK_TOKENS, 0, 1);
    let queue = world.start(pending.id(), BLOCK_TOKENS, 0);
    for pages in filled(&sent, 0, PushOrder::Backwards) {
        queue.push(pages).await.unwrap();
    }
    let error = queue.commit(CONTEXT).await.unwrap_err();
    assert!(matches!(error, TransferError::StillMissing { rounds: 51 }), "{error}");
    let counts = world.receiver.stats().counts();
    assert_eq!(counts.pages, 0, "nothing was written");
    assert_eq!(counts.corrupt_pages, u64::from(51 * LAYERS));
    drop((pending, sent));
    world.sender.drained().await;
    world.assert_idle();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_answers_nothing_is_given_up(
    #[values(Via::InPlace, Via::InProcess, Via::Grpc, Via::Lanes)] via: Via,
) {
    let mut world = World::new(via, Faults { drop: 1.0, ..Faults::default() });
    let stall = Duration::from_millis(20);
    world.configure(SenderConfig { stall, opens_max: 3, ..support::sender_config() });
    let sent = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let queue = world.start(pending.id(), TOKENS, 0);
    queue.push(filled(&sent, 0, PushOrder::Layers).swap_remove(0)).await.unwrap();
    let failed = queue.failed().await;
    assert!(matches!(failed, TransferError::Unreachable { attempts: 3, .. }), "{failed}");
    assert_eq!(world.receiver.stats().counts().pages, 0);
}

fn assert_rejected(error: &TransferError, reason: RejectReason) {
    match error {
        TransferError::Rejected(why) => assert_eq!(why.reason, reason, "{why}"),
        other => panic!("{other}, not {reason:?}"),
    }
}
