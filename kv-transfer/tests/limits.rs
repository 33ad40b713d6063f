//! What each side refuses, and how it goes on when a peer is gone.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::{BlockTable, PageSpan};
use kv_transfer::transport::{
    Faults, Faulty, GrpcTransport, InProcessTransport, LocalReceivers, Target, Transport,
};
use kv_transfer::{Expected, Receiver, ReceiverConfig, Sender, TransferError, Transports};

use self::support::{
    BLOCK_TOKENS, CONTEXT, INCARNATION, LAYERS, Memory, PATIENCE, PushOrder, Via, World, filled,
    pages_of, sender_config,
};

const TOKENS: u32 = 5 * BLOCK_TOKENS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_dies_is_unreachable_soon() {
    let mut world = World::new(Via::Grpc, Faults::default());
    let sent = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let queue = world.start(pending.id(), TOKENS, 0);
    queue.push(filled(&sent, 0, PushOrder::Layers).swap_remove(0)).await.unwrap();
    support::wait_until("pages have come", || world.receiver.stats().counts().pages == 5).await;
    world.server.take();
    let failed = tokio::time::timeout(Duration::from_secs(20), queue.failed()).await.unwrap();
    assert!(matches!(failed, TransferError::Unreachable { .. }), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_doesnt_hold_gives_way_to_the_next() {
    let memory = Memory::new(64);
    let config = ReceiverConfig { incarnation: INCARNATION, ..ReceiverConfig::default() };
    let receiver = Receiver::new(memory.pool.clone(), memory.region.clone(), config);
    let local = LocalReceivers::default();
    // Nothing listens there.
    let uri = "http://127.0.0.1:1";
    let _registration = local.register(uri, receiver.clone());
    let transports: [Arc<dyn Transport>; 2] =
        [Arc::new(GrpcTransport::new(1)), Arc::new(InProcessTransport::new(local))];
    let sender = Sender::new(Transports::new(transports.to_vec()), sender_config());
    let sending = Memory::new(64);
    let sent = sending.table(TOKENS, 1);
    let pending = receiver
        .expect(Expected {
            reservation: memory.pool.reserve(5).unwrap(),
            held: BlockTable::new(BLOCK_TOKENS),
            tokens: TOKENS,
            context: CONTEXT,
            deadline: Instant::now() + PATIENCE,
        })
        .unwrap();
    let job = kv_transfer::SendJob {
        id: pending.id(),
        target: Target { worker: "receiver".into(), uri: uri.into(), incarnation: INCARNATION },
        transports: vec!["nccl".into(), "grpc".into(), "in-process".into()],
        blocks: 0..5,
        tokens: TOKENS,
        region: sending.region.clone(),
        deadline: Instant::now() + PATIENCE,
    };
    let queue = sender.start(job).unwrap();
    for pages in filled(&sent, 0, PushOrder::Layers) {
        queue.push(pages).await.unwrap();
    }
    assert_eq!(queue.commit(CONTEXT).await.unwrap().transport, "in-process");
    assert_eq!(pending.verified(Instant::now() + PATIENCE).await.unwrap().blocks().len(), 5);
}

#[tokio::test]
async fn a_caller_that_pushes_the_wrong_pages_is_told() {
    let world = World::new(Via::InProcess, Faults::default());
    let sent = world.sending.table(TOKENS, 1);
    let page = |layer: u32, block: u32| {
        pages_of(&sent, PageSpan { layers: layer..layer + 1, blocks: block..block + 1 })
    };
    let wrong = [
        vec![page(0, 1)],             // held by the receiver
        vec![page(LAYERS, 3)],        // no such layer
        vec![page(0, 2), page(0, 2)], // twice
    ];
    for pushes in wrong {
        let pending = world.expect(TOKENS, 2, 1);
        let queue = world.start(pending.id(), TOKENS, 2);
        for pages in pushes {
            queue.push(pages).await.unwrap();
        }
        let failed = queue.failed().await;
        assert!(matches!(failed, TransferError::WrongPages(_)), "{failed}");
    }
}

#[tokio::test]
async fn a_commit_without_all_pages_is_an_error() {
    let world = World::new(Via::InProcess, Faults::default());
    let sent = world.sending.table(TOKENS, 1);
    let pending = world.expect(TOKENS, 0, 1);
    let queue = world.start(pending.id(), TOKENS, 0);
    queue.push(filled(&sent, 0, PushOrder::Layers).swap_remove(0)).await.unwrap();
    let error = queue.commit(CONTEXT).await.unwrap_err();
    assert_eq!(error, TransferError::Incomplete { missing_pages: 5 * (LAYERS as usize - 1) });
}

#[tokio::test]
async fn without_a_common_transport_nothing_starts() {
    let world = World::new(Via::Grpc, Faults::default());
    let pending = world.expect(TOKENS, 0, 1);
    let mut job = world.job(pending.id(), TOKENS, 0);
    job.transports = vec!["nccl".into()];
    let error = world.sender.start(job).unwrap_err();
    assert_eq!(error, TransferError::NoTransport { offered: vec!["nccl".into()] });
}

#[tokio::test]
async fn expectations_that_dont_add_up_are_refused() {
    let world = World::new(Via::InProcess, Faults::default());
    let expect = |held: BlockTable, credits: u32| {
        world.receiver.expect(Expected {
            reservation: world.receiving.pool.reserve(credits).unwrap(),
            held,
            tokens: TOKENS,
            context: CONTEXT,
            deadline: Instant::now() + PATIENCE,
        })
    };
    let partial = world.receiving.table(BLOCK_TOKENS + 1, 1);
    let longer = world.receiving.table(TOKENS + BLOCK_TOKENS, 1);
    let cases = [(BlockTable::new(BLOCK_TOKENS), 4), (partial, 5), (longer, 5)];
    for (held, credits) in cases {
        let error = expect(held, credits).unwrap_err();
        assert!(matches!(error, TransferError::WrongExpectation(_)), "{error}");
    }
    world.assert_idle();
}

#[tokio::test(start_paused = true)]
async fn open_hand_offs_are_bounded_and_expired_ones_make_room() {
    let world = World::new(Via::InProcess, Faults::default());
    let time = Duration::from_secs(60);
    let expect = || world.try_expect(1, 0, 1, time);
    let open: Vec<_> = (0..128).map(|_| expect().unwrap()).collect();
    assert_eq!(expect().unwrap_err(), TransferError::TooManyHandoffs { handoffs_max: 128 });
    assert_eq!(world.receiving.pool.counts().reserved, 128);
    tokio::time::advance(time * 2).await;
    let late = world.try_expect(1, 0, 1, time * 4).unwrap();
    assert_eq!(world.receiving.pool.counts().reserved, 1, "the others' time was over");
    assert_eq!(world.receiver.stats().counts().handoffs_expired, 128);
    drop((open, late));
    world.assert_idle();
}

#[tokio::test]
async fn faults_repeat_with_their_seed() {
    let counts = async |seed| {
        let faults = Faults { duplicate: 0.5, corrupt: 0.2, seed, ..Faults::default() };
        let world = World::new(Via::InProcess, faults);
        world.hand_over(TOKENS, 0, PushOrder::Layers, 1).await;
        let counts = world.receiver.stats().counts();
        (counts.duplicate_pages, counts.corrupt_pages)
    };
    let first = counts(1).await;
    assert_eq!(first, counts(1).await);
    let mut others = Vec::new();
    for seed in 2..8 {
        others.push(counts(seed).await);
    }
    assert!(others.iter().any(|other| *other != first));
}

#[test]
fn a_faulty_transport_is_offered_under_its_own_name() {
    let inner = Arc::new(GrpcTransport::new(1));
    assert_eq!(Faulty::new(inner, Faults::default()).name(), "grpc");
}
