use std::sync::Arc;
use std::time::Duration;

use cluster::ErrorCode;
use futures::future::join_all;
use futures::poll;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

/// A pool, and as many running sequences as are said to be.
struct Scripted {
    pool: BlockPool,
    running: AtomicU32,
    wanted: AtomicU32,
}

impl Scripted {
    fn new(blocks: u32) -> Self {
        let pool = BlockPool::new(blocks, 4);
        Self { pool, running: AtomicU32::new(0), wanted: AtomicU32::new(0) }
    }

    fn wanted(&self) -> u32 {
        self.wanted.load(Ordering::Relaxed)
    }
}

impl Lender for Scripted {
    fn pool(&self) -> &BlockPool {
        &self.pool
    }

    fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    fn want(&self, blocks: u32) {
        self.wanted.store(blocks, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_credit_is_given_back_when_dropped() {
    let (lender, credits) = (Scripted::new(8), Credits::default());
    let credit = credits.take(&lender, 5).await.unwrap();
    assert_eq!(lender.pool.counts().available(), 3);
    drop(credit);
    assert_eq!(lender.pool.counts().available(), 8);
    assert_eq!(credits.waiting(), 0);
}

#[tokio::test]
async fn whoever_finds_the_pool_full_waits_for_blocks() {
    let (lender, credits) = (Scripted::new(8), Credits::default());
    let first = credits.take(&lender, 6).await.unwrap();
    let mut second = Box::pin(credits.take(&lender, 3));
    assert!(poll!(&mut second).is_pending());
    assert_eq!((credits.waiting(), lender.wanted()), (1, 3));
    drop(first);
    assert_eq!(timeout(SOON, second).await.unwrap().unwrap().remaining(), 3);
    assert_eq!(lender.wanted(), 0, "nobody waits any more");
}

#[tokio::test]
async fn a_small_prompt_does_not_overtake_a_large_one() {
    let (lender, credits) = (Scripted::new(8), Credits::default());
    let first = credits.take(&lender, 4).await.unwrap();
    let mut large = Box::pin(credits.take(&lender, 8));
    let mut small = Box::pin(credits.take(&lender, 1));
    assert!(poll!(&mut large).is_pending());
    assert!(poll!(&mut small).is_pending());
    drop(first);
    let large = timeout(SOON, large).await.unwrap().unwrap();
    assert!(poll!(&mut small).is_pending());
    drop(large);
    timeout(SOON, small).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_gives_up_leaves_the_line() {
    let (lender, credits) = (Scripted::new(8), Credits::default());
    let first = credits.take(&lender, 8).await.unwrap();
    let mut impatient = Box::pin(credits.take(&lender, 8));
    assert!(poll!(&mut impatient).is_pending());
    drop(impatient);
    assert_eq!(credits.waiting(), 0);
    drop(first);
    timeout(SOON, credits.take(&lender, 8)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_prompt_larger_than_the_pool_is_refused_at_once() {
    let (lender, credits) = (Scripted::new(4), Credits::default());
    let error = credits.take(&lender, 5).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn room_is_left_for_running_sequences_to_grow() {
    let (lender, credits) = (Scripted::new(8), Credits::default());
    let running = lender.pool.reserve(2).unwrap();
    lender.running.store(2, Ordering::Relaxed);
    let mut crowded = Box::pin(credits.take(&lender, 5));
    assert!(poll!(&mut crowded).is_pending(), "6 are free, 5 and 2 are wanted");
    drop((crowded, running));
    // A prompt that takes the whole pool can only wait until nobody else is there.
    lender.running.store(3, Ordering::Relaxed);
    timeout(SOON, credits.take(&lender, 8)).await.unwrap().unwrap();
}

#[tokio::test]
async fn everybody_gets_a_turn() {
    let (lender, credits) = (Arc::new(Scripted::new(8)), Arc::new(Credits::default()));
    let turns = (0..40u32).map(|turn| {
        let (lender, credits) = (lender.clone(), credits.clone());
        async move {
            let credit = credits.take(&*lender, 1 + turn % 8).await.unwrap();
            tokio::task::yield_now().await;
            drop(credit);
        }
    });
    timeout(Duration::from_secs(30), join_all(turns)).await.unwrap();
    assert_eq!(lender.pool.counts().available(), 8);
}
